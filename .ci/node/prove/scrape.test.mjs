// Other people's programs read our metrics: Debian's victoria-metrics scrapes
// three pods for a minute, promtool judges names and types, and every name in
// the dashboard and the alerts is one that a pod has.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { before, test } from 'node:test'
import WebSocket from 'ws'
import { freePort, loginURL, request, root, start, startNATS, startPod, startRedis, tempDir, until } from '../lib.mjs'

let pods
const sockets = []

before(async () => {
  const [redis, nats] = await Promise.all([startRedis(), startNATS()])
  pods = await Promise.all(['p1', 'p2', 'p3'].map((id) => startPod(id, { redis, nats })))
  for (let i = 0; i < 60; i++) {
    const s = new WebSocket(await loginURL(pods[i % 3], 'acme', `ag${i % 7}`, `u${i}`))
    await new Promise((done, fail) => s.once('message', done).once('error', fail))
    sockets.push(s)
  }
})

test("victoria-metrics: the sum of active connections is the clients' count", { timeout: 150_000 }, async () => {
  const port = await freePort()
  const config = path.join(tempDir('vm'), 'scrape.yaml')
  fs.writeFileSync(config, `scrape_configs:\n  - job_name: daisi-ws\n    scrape_interval: 2s\n    static_configs:\n      - targets: [${pods.map((p) => `'${new URL(p.internal).host}'`).join(', ')}]\n`)
  start('victoria-metrics', 'victoria-metrics', [`-promscrape.config=${config}`, `-storageDataPath=${tempDir('vm-data')}`, `-httpListenAddr=127.0.0.1:${port}`,
    '-search.latencyOffset=1s', '-search.disableCache'])
  const query = async (q) => {
    const a = await request(`http://127.0.0.1:${port}/api/v1/query?${new URLSearchParams({ query: q })}`)
    return Number(a.json?.data?.result?.[0]?.value?.[1])
  }
  await until('the sum', async () => (await query('sum(dws_active_connections)')) === sockets.length, 30)
  await new Promise((r) => setTimeout(r, 60_000)) // a minute of scrapes is the subject, not a wait
  assert.equal(await query('sum(dws_active_connections)'), sockets.length)
  assert.equal(await query('min_over_time(sum(dws_active_connections)[45s:2s])'), sockets.length)
  assert.ok((await query('min(count_over_time(up{job="daisi-ws"}[1m]))')) >= 25, 'scrapes are missing')
  assert.equal(await query('min(min_over_time(up{job="daisi-ws"}[1m]))'), 1)
})

test('promtool check metrics, check rules', async () => {
  const { text } = await request(pods[0].internal + '/metrics')
  const judged = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })
  assert.equal(judged.status, 0, judged.stdout + judged.stderr)
  execFileSync('promtool', ['check', 'rules', path.join(root, '.deploy/prometheus/rules.yaml')])
})

test('every metric of the dashboard and the alerts exists', async () => {
  const { text } = await request(pods[0].internal + '/metrics')
  const have = new Set(text.split('\n').map((l) => l.match(/^# TYPE (\w+)/)?.[1]))
  for (const file of ['grafana/daisi-ws.json', 'prometheus/rules.yaml']) {
    const used = new Set(fs.readFileSync(path.join(root, '.deploy', file), 'utf8').match(/\bdws_[a-z_]+/g).map((n) => n.replace(/_bucket$/, '')))
    assert.ok(used.size > 5, file)
    for (const name of used) assert.ok(have.has(name), `${file}: no metric ${name}`)
  }
})
