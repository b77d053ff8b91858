// The binary as a person meets it: no settings, the printed line, exit codes.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { binary, freePort, keys, root, startNATS, startPod, startRedis, until } from './lib.mjs'

const exec = promisify(execFile)
const bare = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith('DWS_')))

// daisi runs the binary to its end.
async function daisi(args, env = {}) {
  try {
    const { stdout, stderr } = await exec(binary, args, { env: { ...bare, ...env }, timeout: 20_000 })
    return { code: 0, stdout, stderr }
  } catch (e) {
    return { code: e.code, stdout: e.stdout, stderr: e.stderr }
  }
}

test('without settings: the printed line logs in, and shows what publish publishes', { timeout: 60_000 }, async () => {
  const pod = await startPod('printed', { env: Object.fromEntries(Object.keys(keys).map((k) => [k, ''])) })
  const line = await until('the line', () => pod.child.log.match(/^\.\/bin\/daisi-ws connect '.*'$/m)?.[0])
  assert.match(pod.child.log, /DEVELOPMENT: ONE POD ONLY/)
  const client = spawn('bash', ['-c', line + ' -select 628@s.whatsapp.net -n 3'], { cwd: root, env: bare })
  let lines = ''
  client.stdout.on('data', (d) => (lines += d))
  client.stderr.on('data', (d) => (lines += d))
  const ended = new Promise((done) => client.on('exit', done))
  await until('ready and selected', () => lines.split('\n').length > 2)
  const nats = pod.child.log.match(/-nats (\S+)/)[1]
  const published = await daisi(['publish', '-nats', nats, 'websocket.demo.agent1.messages.628@s.whatsapp.net', '{"hello":"world"}'])
  assert.equal(published.code, 0, published.stderr)
  assert.match(published.stdout, /^stored in wa_stream as \d+$/m)
  assert.equal(await ended, 0, lines)
  const [ready, selected, event] = lines.trim().split('\n').map((l) => JSON.parse(l))
  assert.equal(ready.type, 'ready')
  assert.equal(selected.payload.chat_id, '628@s.whatsapp.net')
  assert.deepEqual(event.payload, { hello: 'world', event_type: 'message' })
  const secrets = line.match(/(?:key|token)=([^&']+)/g).map((s) => decodeURIComponent(s.split('=')[1]))
  const log = pod.child.log.split('\n').filter((l) => l.startsWith('{'))
  for (const secret of secrets) assert.ok(log.every((l) => !l.includes(secret)), 'a secret is in the log')
  for (const l of log) assert.ok(JSON.parse(l).level, l)
  assert.equal(await pod.stop(), 0)
})

test('lines of standard input are sent; a refusal is told with its body', { timeout: 60_000 }, async () => {
  const pod = await startPod('stdin')
  const { code, stderr } = await daisi(['connect', `${pod.ws}/ws/acme/ag1?token=AAAA&x-api-key=${keys.DWS_AUTH_API_KEY}`])
  assert.equal(code, 1)
  assert.match(stderr, /403.*InvalidToken/)
  const minted = await daisi(['token', 'mint', '-company', 'acme', '-agent', 'ag1', '-user', 'u1'], keys)
  assert.equal(minted.code, 0, minted.stderr)
  const token = minted.stdout.trim()
  const inspected = await daisi(['token', 'inspect', token], keys)
  assert.match(inspected.stdout, /purpose +user[^]*\(valid\)[^]*company_id +acme[^]*kid +k1/)
  const client = spawn(binary, ['connect', '-n', '3', `${pod.ws}/ws/acme/ag1?token=${token}&x-api-key=${keys.DWS_AUTH_API_KEY}`], { env: bare })
  let lines = ''
  client.stdout.on('data', (d) => (lines += d))
  client.stdin.end('{"type":"ready"}\n{"type":"nonsense"}\n')
  assert.equal(await new Promise((done) => client.on('exit', done)), 0)
  const frames = lines.trim().split('\n').map((l) => JSON.parse(l))
  assert.deepEqual(frames[1], { type: 'ready' })
  assert.equal(frames[2].payload.code, 'BadRequest')
  await pod.stop('SIGKILL')
})

test('exit codes and what they say', async () => {
  const f = async (want, says, args, env) => {
    const r = await daisi(args, env)
    assert.equal(r.code, want, `${args}: ${r.stderr}`)
    assert.match(r.stdout + r.stderr, says)
  }
  await f(0, /^daisi-ws \S+ go1\./, ['version'])
  await f(0, /daisi-ws connect/, ['help'])
  await f(2, /no command "fly"/, ['fly'])
  await f(2, /DWS_REDIS_URI: no such setting; did you mean DWS_REDIS_URL\?/, ['run'], { DWS_REDIS_URI: 'x' })
  await f(2, /DWS_REQUIRE_EXTERNAL=true, but DWS_REDIS_URL, DWS_NATS_URL/, ['run'], { DWS_REQUIRE_EXTERNAL: 'true' })
  await f(2, /DWS_PING_INTERVAL/, ['config'], { DWS_PING_INTERVAL: 'soon' })
  await f(0, /DWS_AUTH_API_KEY=\*\*\* +# environment/, ['config'], keys)
  await f(2, /set DWS_AUTH_TOKEN_KEYS/, ['token', 'mint', '-company', 'a', '-agent', 'b', '-user', 'c'])
  await f(2, /an event is a JSON object/, ['publish', 'websocket.a.b.chats', '[]'])
  await f(1, /connect to NATS/, ['publish', '-nats', `nats://127.0.0.1:${await freePort()}`, 'websocket.a.b.chats', '{}'])
})

test('a port that is taken is said, with what to change', { timeout: 60_000 }, async () => {
  const pod = await startPod('first')
  const r = await daisi(['run'], { DWS_HTTP_ADDR: new URL(pod.http).host, DWS_INTERNAL_ADDR: '127.0.0.1:0', DWS_RPC_ADDR: '127.0.0.1:0' })
  assert.equal(r.code, 1)
  assert.match(r.stderr, /address already in use.*DWS_HTTP_ADDR/)
  await pod.stop('SIGKILL')
})

test('SIGTERM on real servers ends in order, with 0, and its clients are told', { timeout: 60_000 }, async () => {
  const [redis, nats] = await Promise.all([startRedis(), startNATS()])
  const pod = await startPod('term', { redis, nats })
  const minted = await daisi(['token', 'mint', '-company', 'acme', '-agent', 'ag1', '-user', 'u1'], keys)
  const client = spawn(binary, ['connect', `${pod.ws}/ws/acme/ag1?token=${minted.stdout.trim()}&x-api-key=${keys.DWS_AUTH_API_KEY}`], { env: bare })
  let said = ''
  client.stdout.on('data', (d) => (said += d))
  client.stderr.on('data', (d) => (said += d))
  const ended = new Promise((done) => client.on('exit', done))
  await until('ready', () => said.includes('"ready"'))
  assert.equal(await pod.stop('SIGTERM'), 0, pod.child.log.slice(-3000))
  assert.equal(await ended, 1)
  assert.match(said, /closed by the server: 1001/)
})
