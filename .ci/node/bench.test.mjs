// What daisi-bench says it received, held against a client we did not write and
// against NATS itself, in the same run.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import WebSocket from 'ws'
import { keys, loginURL, metric, publisher, root, startNATS, startPod, startRedis, tempDir, until } from './lib.mjs'

const SESSIONS = 10
const COMPANY = 'npm-c0' // as daisi-bench calls the first one of -company npm
const CHAT = '62812000001@s.whatsapp.net' // the chat that its sessions select

// bench runs a fan-out to the sessions of one agent, and gives its exit code and
// report.
async function bench(pods, nats, ...more) {
  const json = path.join(tempDir('bench'), 'report.json')
  const code = await new Promise((done) => {
    execFile(path.join(root, 'bin/daisi-bench'), [
      'fanout', '-addr', pods.map((p) => p.http.slice('http://'.length)).join(), '-nats', nats, '-api-key', keys.DWS_AUTH_API_KEY,
      '-token-key', keys.DWS_AUTH_TOKEN_KEYS, '-company', 'npm', '-companies', '1', '-agents', '1', '-sessions', String(SESSIONS), '-other', '-1',
      '-rate', '200', '-duration', '2s', '-quiet', '-json', json, ...more,
    ], { timeout: 60_000 }, (e) => done(e ? e.code : 0))
  })
  return { code, ...JSON.parse(fs.readFileSync(json)) }
}

// listen counts the event frames of one npm client.
async function listen(pod, user, query) {
  const socket = new WebSocket((await loginURL(pod, COMPANY, 'agent0', user)) + query)
  const client = { events: 0, ready: false, last: 0, socket }
  socket.on('message', (data) => {
    const frame = JSON.parse(data)
    client.ready ||= frame.type === 'ready'
    if (frame.type !== 'event') return
    assert.ok(frame.seq > client.last, 'seq falls')
    client.last = frame.seq
    client.events++
  })
  await until('ready', () => client.ready)
  return client
}

test('daisi-bench counts what npm ws and NATS count', { timeout: 180_000 }, async () => {
  const [redis, nats] = await Promise.all([startRedis(), startNATS()])
  const pods = await Promise.all(['a', 'b'].map((id) => startPod(`bench-${id}`, { redis, nats })))
  await Promise.all(pods.map((p) => until('peers', async () => (await metric(p, 'dws_forward_stream_open')) >= 1)))
  const { nc } = await publisher(nats)
  const published = { chats: 0, chat: 0 }
  nc.subscribe(`websocket.${COMPANY}.agent0.>`, {
    callback: (_, m) => {
      if (m.subject.endsWith('.chats')) published.chats++
      if (m.subject.endsWith(`.messages.${CHAT}`)) published.chat++
    },
  })
  await nc.flush()
  const selected = await listen(pods[0], 'npm-selected', `&chat=${encodeURIComponent(CHAT)}`)
  const plain = await listen(pods[1], 'npm-plain', '')

  const clean = await bench(pods, nats)
  assert.ok(clean.code === 0 || clean.code === 4, `exit ${clean.code}: ${clean.errors}`) // 4: this machine is busy
  const want = () => published.chats + published.chat
  await until('the npm clients', () => selected.events >= want() && plain.events >= published.chats)
  assert.ok(published.chats > 100 && published.chat > 50, JSON.stringify(published))
  assert.equal(selected.events, want())
  assert.equal(plain.events, published.chats)
  assert.equal(clean.oracle.received, SESSIONS * selected.events)
  assert.equal(clean.oracle.met, clean.oracle.expected)

  // The same with one frame that the harness throws away: it must miss it, and
  // nobody else.
  const before = selected.events
  const planted = await bench(pods, nats, '-plant', 'drop=1')
  await until('the npm clients', () => selected.events >= want())
  assert.equal(planted.code, 3)
  assert.equal(planted.oracle.breaches.lost, 1)
  assert.equal(selected.events, want())
  assert.equal(planted.oracle.received, SESSIONS * (selected.events - before) - 1)
  selected.socket.terminate()
  plain.socket.terminate()
  assert.deepEqual(await Promise.all(pods.map((p) => p.stop())), [0, 0])
})
