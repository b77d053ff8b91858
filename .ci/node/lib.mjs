// What the tests share: starting real servers and gateways as processes, and
// ending them. Nothing here knows how a gateway works inside.
import { execFileSync, spawn } from 'node:child_process'
import { X509Certificate, createHash, randomBytes } from 'node:crypto'
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'
import { connect as connectNATS } from 'nats'

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
export const out = path.join(root, '.ci/out')
export const binary = path.join(root, 'bin/daisi-ws')
fs.mkdirSync(out, { recursive: true })

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'daisi-ws-node-'))
const ends = [() => fs.rmSync(scratch, { recursive: true, force: true })]
after(async () => {
  for (const end of ends.reverse()) await end()
})

export const atEnd = (f) => ends.push(f)
export const tempDir = (name) => fs.mkdtempSync(path.join(scratch, name + '-'))

export async function freePort() {
  for (;;) {
    const port = 10000 + Math.floor(Math.random() * 22000)
    if (given.has(port)) continue
    given.add(port)
    const s = net.createServer()
    const free = await new Promise((done) => s.once('error', () => done(false)).listen(port, '127.0.0.1', () => done(true)))
    if (!free) continue
    await new Promise((done) => s.close(done))
    return port
  }
}

// given are the ports handed out, each once, below those that the kernel gives
// to connections.
const given = new Set()

// until polls f, at most for seconds, and returns what it returns once that is
// true-ish. Errors of f count as "not yet".
export async function until(what, f, seconds = 20) {
  let last
  for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
    try {
      const v = await f()
      if (v) return v
      last = undefined
    } catch (e) {
      last = e
    }
    await new Promise((r) => setTimeout(r, 20))
  }
  throw new Error(`${what}: not within ${seconds} s${last ? ': ' + last.message : ''}`)
}

// start spawns a process whose output goes to .ci/out, and ends it with the
// test file. It returns the child with .log, its output so far.
export function start(name, command, args, env = {}) {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith('DWS_')))
  const child = spawn(command, args, { env: { ...clean, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const file = fs.createWriteStream(path.join(out, name + '.log'))
  child.log = ''
  for (const s of [child.stdout, child.stderr]) {
    s.setEncoding('utf8')
    s.on('data', (text) => {
      child.log += text
      file.write(text)
    })
  }
  child.ended = new Promise((done) => {
    child.on('exit', (code, signal) => done(code ?? signal))
    child.on('error', (e) => done(e))
  })
  child.stop = async (signal = 'SIGTERM') => {
    child.kill(signal)
    const late = setTimeout(() => child.kill('SIGKILL'), 40_000)
    const code = await child.ended
    clearTimeout(late)
    return code
  }
  ends.push(() => child.stop(name.startsWith('pod') ? 'SIGKILL' : 'SIGTERM'))
  return child
}

export async function startRedis() {
  const port = await freePort()
  start(`redis-${port}`, 'redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', tempDir('redis')])
  await until('redis-server', () => reachable(port))
  return `redis://127.0.0.1:${port}/0`
}

export async function startNATS() {
  const port = await freePort()
  const server = path.join(root, '.tools/bin/nats-server')
  start(`nats-${port}`, server, ['-js', '-a', '127.0.0.1', '-p', String(port), '-sd', tempDir('nats')])
  await until('nats-server', () => reachable(port))
  return `nats://127.0.0.1:${port}`
}

function reachable(port) {
  return new Promise((done) => {
    const s = net.connect(port, '127.0.0.1', () => done(true))
    s.on('error', () => done(false))
    s.on('close', () => done(false))
    s.on('connect', () => s.destroy())
  })
}

// certificate is self-signed for 127.0.0.1 and localhost; spki is what Chromium
// is told to trust.
export function certificate() {
  const dir = tempDir('tls')
  const [cert, key] = [path.join(dir, 'cert.pem'), path.join(dir, 'key.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', cert], { stdio: 'ignore' })
  const pem = fs.readFileSync(cert)
  const der = new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' })
  return { cert, key, pem, spki: createHash('sha256').update(der).digest('base64') }
}

export const keys = {
  DWS_AUTH_API_KEY: 'api-' + randomBytes(8).toString('hex'),
  DWS_AUTH_MINT_KEY: 'mint-' + randomBytes(8).toString('hex'),
  DWS_AUTH_ADMIN_KEY: 'admin-' + randomBytes(8).toString('hex'),
  DWS_AUTH_TOKEN_KEYS: 'k1:' + randomBytes(32).toString('hex'),
  DWS_AUTH_ADMIN_TOKEN_KEYS: 'k1:' + randomBytes(32).toString('hex'),
}

// startPod starts a gateway; without redis or nats it embeds them. tls is a
// certificate(). It returns once the pod is ready.
export async function startPod(id, { redis, nats, tls, env = {}, wait = true } = {}) {
  const [httpPort, internalPort, rpcPort] = [await freePort(), await freePort(), await freePort()]
  const child = start(`pod-${id}`, binary, ['run'], {
    DWS_POD_ID: id,
    DWS_HTTP_ADDR: `127.0.0.1:${httpPort}`,
    DWS_INTERNAL_ADDR: `127.0.0.1:${internalPort}`,
    DWS_RPC_ADDR: `127.0.0.1:${rpcPort}`,
    DWS_POD_ADDR: `127.0.0.1:${rpcPort}`,
    ...keys,
    ...(redis && { DWS_REDIS_URL: redis }),
    ...(nats && { DWS_NATS_URL: nats, DWS_NATS_CREATE_STREAM: 'true' }),
    ...(redis && nats && { DWS_RPC_INSECURE: 'true' }),
    ...(tls && { DWS_TLS_CERT_FILE: tls.cert, DWS_TLS_KEY_FILE: tls.key }),
    ...env,
  })
  const pod = {
    id, child, tls, stop: child.stop,
    http: `${tls ? 'https' : 'http'}://127.0.0.1:${httpPort}`,
    ws: `${tls ? 'wss' : 'ws'}://127.0.0.1:${httpPort}`,
    internal: `http://127.0.0.1:${internalPort}`,
  }
  if (wait) {
    await until(`pod ${id} ready`, async () => {
      if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${child.log.slice(-2000)}`)
      return (await request(pod.internal + '/readyz')).status === 200
    }).catch((e) => { throw new Error(`${e.message}\n${child.log.slice(-4000)}`) })
  }
  return pod
}

// request is one HTTP exchange as it is on the wire: nothing is followed,
// added or hidden. An upgrade is answered {status: 101} and cut.
export function request(url, { method = 'GET', headers = {}, body, ca } = {}) {
  const u = new URL(url)
  return new Promise((done, fail) => {
    const r = (u.protocol === 'https:' ? https : http).request(u, { method, headers, ca, agent: false, timeout: 10_000 })
    r.on('response', (res) => {
      const parts = []
      res.on('data', (d) => parts.push(d))
      res.on('end', () => {
        const text = Buffer.concat(parts).toString()
        let json
        try { json = JSON.parse(text) } catch { /* not every answer is JSON */ }
        done({ status: res.statusCode, headers: res.headers, text, json })
      })
    })
    r.on('upgrade', (res, socket) => {
      done({ status: 101, headers: res.headers, text: '' })
      socket.destroy()
    })
    r.on('timeout', () => r.destroy(new Error('no answer in 10 s')))
    r.on('error', fail)
    r.end(body)
  })
}

export async function userToken(pod, company, agent, user, seconds = 3600) {
  const a = await request(pod.http + '/generate-token', {
    method: 'POST', ca: pod.tls?.pem, headers: { 'X-API-Key': keys.DWS_AUTH_MINT_KEY, 'Content-Type': 'application/json' },
    body: JSON.stringify({ company_id: company, agent_id: agent, user_id: user, expires_in_seconds: seconds }),
  })
  if (a.status !== 200) throw new Error(`token refused: ${a.status} ${a.text}`)
  return a.json.token
}

export async function loginURL(pod, company, agent, user) {
  const q = new URLSearchParams({ 'x-api-key': keys.DWS_AUTH_API_KEY, token: await userToken(pod, company, agent, user) })
  return `${pod.ws}/ws/${company}/${agent}?${q}`
}

// metric adds up the samples of name whose line contains all of parts.
export async function metric(pod, name, ...parts) {
  const { text } = await request(pod.internal + '/metrics')
  return text.split('\n')
    .filter((l) => (l.startsWith(name + '{') || l.startsWith(name + ' ')) && parts.every((p) => l.includes(p)))
    .reduce((sum, l) => sum + Number(l.slice(l.lastIndexOf(' ') + 1)), 0)
}

// publisher is the upstream service: it stores events and waits for each ack.
export async function publisher(url) {
  const nc = await connectNATS({ servers: url })
  ends.push(() => nc.close())
  const js = nc.jetstream()
  return { nc, publish: (subject, body) => js.publish(subject, Buffer.from(body)) }
}

// natsOf reads where an embedded NATS listens from what the pod printed.
export const natsOf = (pod) => until('NATS address', () => pod.child.log.match(/-nats (nats:\/\/\S+)/)?.[1])

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')

// payloadOf cuts the payload's bytes out of an event frame.
export function payloadOf(frame) {
  const m = /^\{"type":"event","payload":(\{.*\}),"seq":(\d+)\}$/s.exec(frame.toString())
  if (!m) throw new Error(`no event frame: ${frame.toString().slice(0, 200)}`)
  return { body: m[1], seq: Number(m[2]) }
}
