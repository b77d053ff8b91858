// The npm package ws, as it is, on pod A; the partition of its agent is read
// by pod B, so every event comes over the stream between pods.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { before, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import WebSocket from 'ws'
import { certificate, loginURL, metric, payloadOf, publisher, sha256, startNATS, startPod, startRedis, until } from './lib.mjs'

const EVENTS = 1000
const CHAT = '628@s.whatsapp.net'
let redis, nats, store

before(async () => {
  ;[redis, nats] = await Promise.all([startRedis(), startNATS()])
})

for (const [scheme, deflate] of [['ws'], ['wss'], ['ws', true]]) {
  test(`${scheme}${deflate ? ', permessage-deflate' : ''}: ${EVENTS} events of 10 B to 64 KiB through another pod, each as published, in order`, { timeout: 120_000 }, async () => {
    const tls = scheme === 'wss' ? certificate() : undefined
    const [a, b] = await Promise.all(['a', 'b'].map((id) => startPod(`${id}-${scheme}${deflate ?? ''}`, { redis, nats, tls, env: deflate ? { DWS_WS_DEFLATE: 'true' } : {} })))
    await Promise.all([a, b].map((p) => until('peers', async () => (await metric(p, 'dws_forward_stream_open')) >= 1)))
    store ??= await publisher(nats)
    const agent = await agentReadBy(b, a, store)

    const socket = new WebSocket(await loginURL(a, 'acme', agent, 'u1'), { ca: tls?.pem, perMessageDeflate: { threshold: 0 } })
    const frames = []
    let closed
    socket.on('message', (data, binary) => {
      assert.equal(binary, false)
      frames.push(data)
    })
    socket.on('close', (code, reason) => (closed = `${code} ${reason}`))
    socket.on('error', (e) => (closed = String(e)))
    await until('ready', () => frames.length === 1 && JSON.parse(frames[0]).type === 'ready')
    assert.equal(socket.extensions, deflate ? 'permessage-deflate' : '')
    socket.send(JSON.stringify({ type: 'select_chat', payload: { chat_id: CHAT } }))
    socket.send(JSON.stringify({ type: 'ready' }))
    await until('the barrier', () => frames.length === 2)
    assert.deepEqual(JSON.parse(frames[1]), { type: 'ready' })

    const before = await metric(b, 'dws_events_forwarded_total')
    const want = []
    for (let i = 0; i < EVENTS; i++) {
      const body = bodyOf(i)
      want.push(sha256(asDelivered(body)))
      await store.publish(`websocket.acme.${agent}.messages.${CHAT}`, body)
      // Neighbours that must not be heard: a chat whose name begins alike, the
      // same chat of another agent and of another company.
      if (i % 100 === 0) {
        await store.publish(`websocket.acme.${agent}.messages.${CHAT}.x`, '{"wrong":"chat"}')
        await store.publish(`websocket.acme.${agent}x.messages.${CHAT}`, '{"wrong":"agent"}')
        await store.publish(`websocket.other.${agent}.messages.${CHAT}`, '{"wrong":"company"}')
      }
    }
    await until('all events', () => closed || frames.length >= EVENTS + 2)
    socket.close()
    await until('close', () => closed)
    assert.match(closed, /^1000|^1005/)

    const deflated = await metric(a, 'dws_frames_deflated_total')
    assert.ok(deflate ? deflated > EVENTS / 2 && deflated <= EVENTS : deflated === 0, `${deflated} frames deflated`)
    judge(frames.slice(2), want)
    assertFindsPlanted(frames.slice(2), want)
    assert.ok((await metric(b, 'dws_events_forwarded_total')) - before >= EVENTS, 'pod B forwarded them')
    assert.deepEqual(await Promise.all([a.stop(), b.stop()]), [0, 0])
  })
}

// judge holds what came against what was published: each once, unchanged, in
// order, with rising sequences.
function judge(frames, want) {
  const events = frames.map(payloadOf)
  assert.deepEqual(events.map((e) => sha256(e.body)), want)
  events.forEach((e, i) => assert.ok(i === 0 || e.seq > events[i - 1].seq, `seq falls at ${i}`))
}

// assertFindsPlanted shows that judge can fail: a frame lost, doubled, swapped
// with its neighbour, changed in one character, or with its neighbour's seq.
function assertFindsPlanted(frames, want) {
  const k = 500
  const seq = (frame, n) => Buffer.from(frame.toString().replace(/"seq":\d+\}$/, `"seq":${n}}`))
  for (const planted of [
    frames.toSpliced(k, 1),
    frames.toSpliced(k, 0, frames[k]),
    frames.toSpliced(k, 2, frames[k + 1], frames[k]),
    frames.toSpliced(k, 1, Buffer.from(frames[k].toString().replace(/"\}(?=,"seq")/, '!"}').replace(/"(message|custom)"/, '"m"'))),
    frames.toSpliced(k, 1, seq(frames[k], payloadOf(frames[k - 1]).seq)),
  ]) {
    assert.throws(() => judge(planted, want), assert.AssertionError)
  }
}

// agentReadBy finds an agent whose partition reader reads and other does not,
// by looking at who dispatches an event of it. For a second after a pod came
// its partitions are read by both.
async function agentReadBy(reader, other, store) {
  for (let i = 0; i < 200; i++) {
    const agent = `agent${i}`
    const [r, o] = [await metric(reader, 'dws_events_dispatched_total'), await metric(other, 'dws_events_dispatched_total')]
    await store.publish(`websocket.acme.${agent}.chats`, '{"probe":1}')
    const who = await until('a reader', async () => {
      const [r2, o2] = [await metric(reader, 'dws_events_dispatched_total'), await metric(other, 'dws_events_dispatched_total')]
      return (r2 > r || o2 > o) && { reader: r2 > r, other: o2 > o }
    })
    if (who.reader && !who.other) return agent
    await setTimeout(50)
  }
  throw new Error('200 agents, and not one is read by the other pod alone')
}

// bodyOf is an object of exactly the size that is i's turn: 10 B, 64 KiB, and
// everything between, with what a decoder would spoil.
function bodyOf(i) {
  const size = i === 0 ? 10 : i === 1 ? 65536 : Math.round(10 * 6553.6 ** ((i * 7919) % EVENTS / EVENTS))
  const rich = `{"event_id":"${i}","big":12345678901234567890,"f":1.0,"text":"\\u00e9 é 😀 </>&","event_type":"custom","pad":""}`
  const head = size > 200 && i % 2 ? rich.slice(0, -2) : '{"a":"'
  const fill = size - Buffer.byteLength(head) - 2
  return head + randomBytes(Math.max(fill, 0)).toString('base64').slice(0, Math.max(fill, 0)) + '"}'
}

const asDelivered = (body) => (body.includes('"event_type"') ? body : body.slice(0, -1) + ',"event_type":"message"}')
