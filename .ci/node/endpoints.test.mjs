// Every endpoint, good and bad, as curl would see it.
import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import WebSocket from 'ws'
import { keys, request, startPod, until, userToken } from './lib.mjs'

const upgrade = {
  Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}
const api = { 'X-API-Key': keys.DWS_AUTH_API_KEY }
const mint = { 'X-API-Key': keys.DWS_AUTH_MINT_KEY }
const admin = { 'X-API-Key': keys.DWS_AUTH_ADMIN_KEY }
let pod, token, adminToken

before(async () => {
  pod = await startPod('endpoints')
  token = await userToken(pod, 'acme', 'ag1', 'u1')
  const a = await request(pod.http + '/admin/generate-token', { method: 'POST', headers: admin, body: '{"admin_id":"root1","expires_in_seconds":60}' })
  adminToken = a.json.token
})

// check asks and compares status and the error's code; details must match too
// when given.
async function check(path, options, status, code, details) {
  const a = await request((options.internal ? pod.internal : pod.http) + path, options)
  assert.equal(a.status, status, `${options.method ?? 'GET'} ${path}: ${a.status} ${a.text}`)
  assert.match(a.headers['x-request-id'] ?? '', /^[A-Za-z0-9._-]{1,64}$/)
  if (code) {
    assert.equal(a.headers['content-type'], 'application/json')
    assert.equal(a.json.code, code, a.text)
    assert.ok(a.json.message, a.text)
    if (details) assert.match(a.json.details ?? '', details)
  }
  return a
}

describe('health', () => {
  for (const [path, status] of [['/health', 'OK'], ['/livez', 'OK'], ['/ready', 'READY'], ['/readyz', 'READY']]) {
    for (const internal of [false, true]) {
      test(`${internal ? 'internal' : 'public'} ${path}`, async () => {
        const a = await check(path, { internal }, 200)
        assert.equal(a.json.status, status)
        if (status === 'READY') assert.ok(Object.keys(a.json.dependencies).length >= 2, a.text)
      })
    }
  }
  test('POST is refused', () => check('/health', { method: 'POST' }, 405, 'MethodNotAllowed'))
})

describe('request id', () => {
  test('a clean one is kept', async () => {
    const a = await request(pod.http + '/health', { headers: { 'X-Request-Id': 'abc.DEF_1-2' } })
    assert.equal(a.headers['x-request-id'], 'abc.DEF_1-2')
  })
  test('another is replaced', async () => {
    const a = await request(pod.http + '/health', { headers: { 'X-Request-Id': 'a b' } })
    assert.match(a.headers['x-request-id'], /^[0-9a-f]{16}$/)
  })
  test('the 101 has one', async () => {
    const a = await check(`/ws/acme/ag1?token=${token}`, { headers: { ...upgrade, ...api } }, 101)
    assert.ok(a.headers['x-request-id'])
  })
})

describe('POST /generate-token', () => {
  const good = { company_id: 'acme', agent_id: 'ag1', user_id: 'u2', expires_in_seconds: 60 }
  const post = (body, headers = mint) => ({ method: 'POST', headers, body: typeof body === 'string' ? body : JSON.stringify(body) })
  test('good', async () => assert.ok((await check('/generate-token', post(good), 200)).json.token))
  test('key by query', () => check(`/generate-token?x-api-key=${mint['X-API-Key']}`, post(good, {}), 200))
  test('no key', () => check('/generate-token', post(good, {}), 401, 'InvalidAPIKey'))
  test("the browser's key", () => check('/generate-token', post(good, api), 401, 'InvalidAPIKey'))
  test('junk', () => check('/generate-token', post('{"company'), 400, 'BadRequest', /JSON/))
  test('an array', () => check('/generate-token', post('[]'), 400, 'BadRequest'))
  test('no company', () => check('/generate-token', post({ ...good, company_id: '' }), 400, 'BadRequest'))
  test('a wildcard agent', () => check('/generate-token', post({ ...good, agent_id: '>' }), 400, 'BadRequest'))
  test('no life', () => check('/generate-token', post({ ...good, expires_in_seconds: 0 }), 400, 'BadRequest', /expires_in_seconds/))
  test('a megabyte', () => check('/generate-token', post({ ...good, user_id: 'x'.repeat(1 << 20) }), 413, 'BadRequest'))
  test('GET', () => check('/generate-token', {}, 405, 'MethodNotAllowed'))
})

describe('POST /admin/generate-token', () => {
  const good = { admin_id: 'root1', expires_in_seconds: 60 }
  const post = (body, headers = admin) => ({ method: 'POST', headers, body: JSON.stringify(body) })
  test('good', async () => assert.ok((await check('/admin/generate-token', post(good), 200)).json.token))
  test('no key', () => check('/admin/generate-token', post(good, {}), 401, 'E4001'))
  test('wrong key', () => check('/admin/generate-token', post(good, mint), 403, 'E4003'))
  test('no admin', () => check('/admin/generate-token', post({ expires_in_seconds: 60 }), 400, 'BadRequest'))
})

describe('GET /ws/{company}/{agent}', () => {
  const get = (headers) => ({ headers: { ...upgrade, ...headers } })
  const without = (name) => ({ headers: Object.fromEntries(Object.entries({ ...upgrade, ...api }).filter(([k]) => k !== name)) })
  const query = () => `?token=${encodeURIComponent(token)}`
  test('good', () => check('/ws/acme/ag1' + query(), get(api), 101))
  test('key by query', () => check(`/ws/acme/ag1${query()}&x-api-key=${api['X-API-Key']}`, get({}), 101))
  test('token by header', () => check('/ws/acme/ag1', get({ ...api, Authorization: 'Bearer ' + token }), 101))
  test('token by subprotocol', async () => {
    const a = await check('/ws/acme/ag1', get({ ...api, 'Sec-WebSocket-Protocol': `json.v1, token.${token.replace(/=+$/, '')}` }), 101)
    assert.equal(a.headers['sec-websocket-protocol'], 'json.v1')
  })
  test('no key', () => check('/ws/acme/ag1' + query(), get({}), 401, 'InvalidAPIKey'))
  test('wrong key', () => check('/ws/acme/ag1' + query(), get({ 'X-API-Key': 'nope' }), 401, 'InvalidAPIKey'))
  test('no token', () => check('/ws/acme/ag1', get(api), 403, 'InvalidToken'))
  test('junk token', () => check('/ws/acme/ag1?token=AAAA', get(api), 403, 'InvalidToken'))
  test('one changed character', () => {
    const i = token.length - 10
    return check(`/ws/acme/ag1?token=${token.slice(0, i) + (token[i] === 'A' ? 'B' : 'A') + token.slice(i + 1)}`, get(api), 403, 'InvalidToken')
  })
  test("an admin's token", () => check(`/ws/acme/ag1?token=${adminToken}`, get(api), 403, 'InvalidToken'))
  test('foreign company', () => check('/ws/other/ag1' + query(), get(api), 403, 'InvalidToken'))
  test('foreign agent', () => check('/ws/acme/ag2' + query(), get(api), 403, 'InvalidToken'))
  test('a wildcard in the path', () => check('/ws/acme/%3E' + query(), get(api), 403, 'InvalidToken'))
  test('no Upgrade', () => check('/ws/acme/ag1' + query(), without('Upgrade'), 400, 'BadRequest', /[Uu]pgrade/))
  test('no Connection', () => check('/ws/acme/ag1' + query(), without('Connection'), 400, 'BadRequest'))
  test('no key of the handshake', () => check('/ws/acme/ag1' + query(), without('Sec-WebSocket-Key'), 400, 'BadRequest'))
  test('an old version', () => check('/ws/acme/ag1' + query(), get({ ...api, 'Sec-WebSocket-Version': '8' }), 400, 'BadRequest'))
  test('POST', () => check('/ws/acme/ag1' + query(), { method: 'POST', headers: { ...upgrade, ...api } }, 405, 'MethodNotAllowed'))
  test('foreign origin', () => check('/ws/acme/ag1' + query(), get({ ...api, Origin: 'https://evil.example' }), 403, 'OriginNotAllowed'))
  test('an expired token', async () => {
    const short = await userToken(pod, 'acme', 'ag1', 'u3', 1)
    await until('expiry', async () => (await request(`${pod.http}/ws/acme/ag1?token=${short}`, get(api))).status === 403)
    await check(`/ws/acme/ag1?token=${short}`, get(api), 403, 'InvalidToken')
  })
  test('a browser reads why', async () => {
    const origin = pod.http
    const s = new WebSocket(`${pod.ws}/ws/acme/ag1?token=AAAA`, { headers: { ...api, Origin: origin } })
    const frames = []
    s.on('message', (m) => frames.push(JSON.parse(m)))
    const closed = await new Promise((done, fail) => {
      s.on('close', (code, reason) => done([code, String(reason)]))
      s.on('error', fail)
    })
    assert.equal(frames[0]?.type, 'error')
    assert.equal(frames[0].payload.code, 'InvalidToken')
    assert.deepEqual(closed, [4403, 'invalid-token'])
  })
})

describe('GET /ws/admin', () => {
  const get = (headers) => ({ headers: { ...upgrade, ...headers } })
  test('good', () => check(`/ws/admin?token=${adminToken}`, get(admin), 101))
  test('no key', () => check(`/ws/admin?token=${adminToken}`, get({}), 401, 'E4001'))
  test('wrong key', () => check(`/ws/admin?token=${adminToken}`, get(api), 403, 'E4003'))
  test("a user's token", () => check(`/ws/admin?token=${token}`, get(admin), 403, 'InvalidToken'))
  test('no Upgrade', () => check(`/ws/admin?token=${adminToken}`, { headers: admin }, 400, 'BadRequest'))
})

describe('development', () => {
  const event = (body) => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
  test('the page', async () => {
    const a = await check('/', {}, 200)
    assert.match(a.headers['content-type'], /^text\/html/)
  })
  test('junk is no event', () => check('/dev/events', event('{'), 400, 'BadRequest'))
})

describe('internal port', () => {
  test('metrics', async () => {
    const a = await check('/metrics', { internal: true }, 200)
    for (const name of ['dws_active_connections', 'dws_connections_total', 'dws_messages_sent_total', 'dws_auth_success_total', 'dws_auth_failure_total']) {
      assert.match(a.text, new RegExp(`^${name}[ {]`, 'm'))
    }
    assert.match(a.text, /^# TYPE dws_active_connections gauge$/m)
    for (const line of a.text.match(/^# HELP dws_.*$/gm)) assert.ok(!/by \/proc/.test(line), `${line}: server/help.go has no sentence for it`)
  })
  test('metrics are not public', () => check('/metrics', {}, 404, 'NotFound'))
  test('the admin API is not public', () => check('/admin/sessions', { headers: admin }, 404, 'NotFound'))
  for (const path of ['/admin/sessions', '/admin/pods', '/admin/routes', '/admin/config', '/debug/pprof/']) {
    test(`${path}: no key`, () => check(path, { internal: true }, 401, 'E4001'))
    test(`${path}: wrong key`, () => check(path, { internal: true, headers: api }, 403, 'E4003'))
    test(`${path}: good`, async () => {
      const a = await check(path, { internal: true, headers: admin }, 200)
      for (const secret of Object.values(keys)) assert.ok(!a.text.includes(secret.replace('k1:', '')), `${path} tells a secret`)
    })
  }
  test('a session is listed, shown, killed', async () => {
    const s = new WebSocket(`${pod.ws}/ws/acme/ag9?token=${await userToken(pod, 'acme', 'ag9', 'u9')}`, { headers: api })
    let closed
    s.on('close', (code) => (closed = code))
    await new Promise((done, fail) => s.on('message', done).on('error', fail))
    const list = await check('/admin/sessions?company=acme&agent=ag9', { internal: true, headers: admin }, 200)
    assert.match(list.text, /"u9"/)
    await check('/admin/sessions/acme/ag9/u9', { internal: true, headers: admin }, 200)
    await check('/admin/sessions/acme/ag9/u9', { internal: true, method: 'DELETE', headers: api }, 403, 'E4003')
    const killed = await request(pod.internal + '/admin/sessions/acme/ag9/u9', { method: 'DELETE', headers: admin })
    assert.ok([200, 202, 204].includes(killed.status), `${killed.status} ${killed.text}`)
    await until('the close', () => closed)
    await check('/admin/sessions/acme/ag9/u9', { internal: true, headers: admin }, 404)
  })
})

test('nothing is here', () => check('/nothing', {}, 404, 'NotFound'))
