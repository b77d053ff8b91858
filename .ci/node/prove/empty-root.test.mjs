// The static binary as uid 65534 in an empty root that is mounted read-only,
// with nothing but an environment: what the container image is, without one.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { binary, freePort, keys, request, start, startNATS, startRedis, tempDir, until } from '../lib.mjs'

test('ready in an empty read-only root, as nobody', { timeout: 60_000 }, async () => {
  assert.match(execFileSync('file', ['-b', binary], { encoding: 'utf8' }), /statically linked/)
  const [redis, nats] = await Promise.all([startRedis(), startNATS()])
  const dir = tempDir('root')
  fs.chmodSync(dir, 0o755)
  fs.copyFileSync(binary, path.join(dir, 'daisi-ws'))
  fs.chmodSync(path.join(dir, 'daisi-ws'), 0o755)
  const [http, internal, rpc] = [await freePort(), await freePort(), await freePort()]
  const env = {
    DWS_REQUIRE_EXTERNAL: 'true', DWS_REDIS_URL: redis, DWS_NATS_URL: nats, DWS_NATS_CREATE_STREAM: 'true', DWS_RPC_INSECURE: 'true',
    DWS_HTTP_ADDR: `127.0.0.1:${http}`, DWS_INTERNAL_ADDR: `127.0.0.1:${internal}`, DWS_RPC_ADDR: `127.0.0.1:${rpc}`, ...keys,
  }
  // A mount namespace of its own: the folder bound onto itself, read-only.
  const run = `mount --bind ${dir} ${dir} && mount -o remount,bind,ro ${dir} && ! touch ${dir}/x 2>/dev/null &&
    exec chroot --userspec=65534:65534 --groups= ${dir} /daisi-ws`
  const child = start('pod-empty-root', 'unshare', ['--mount', 'bash', '-c', run], env)
  await until('ready', async () => {
    if (child.exitCode !== null) throw new Error(child.log)
    return (await request(`http://127.0.0.1:${internal}/readyz`)).status === 200
  })
  const status = fs.readFileSync(`/proc/${child.pid}/status`, 'utf8')
  assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m)
  assert.equal(fs.readlinkSync(`/proc/${child.pid}/exe`).endsWith('/daisi-ws'), true)
  assert.equal(await child.stop(), 0)
})
