// Chromium, driven by clicks on the page that the gateway serves in embedded
// mode. Events are published over NATS by the test and read from the DOM.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { test } from 'node:test'
import { chromium } from 'playwright-core'
import { atEnd, certificate, natsOf, out, publisher, startPod, tempDir, until } from './lib.mjs'

const CHAT = '628@s.whatsapp.net'

for (const scheme of ['http', 'https']) {
  test(`${scheme}: the page logs in, selects a chat, shows its events and no others`, { timeout: 90_000 }, async () => {
    const tls = scheme === 'https' ? certificate() : undefined
    const pod = await startPod(`chromium-${scheme}`, { tls })
    const store = await publisher(await natsOf(pod))
    const browser = await chromium.launchPersistentContext(tempDir('chromium'), {
      executablePath: '/usr/bin/chromium',
      headless: true,
      args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync', ...(tls ? [`--ignore-certificate-errors-spki-list=${tls.spki}`] : [])],
      viewport: { width: 1000, height: 900 },
    })
    atEnd(() => browser.close())
    const page = await browser.newPage()
    const errors = []
    page.on('pageerror', (e) => errors.push(String(e)))
    page.on('console', (m) => m.type() === 'error' && errors.push(m.text()))
    await page.goto(pod.http + '/')
    const text = (id) => page.textContent('#' + id)

    await page.click('#connect')
    await until('ready in the page', async () => /ready/i.test(await text('status')))
    const { company, agent } = await identity(page)
    await page.fill('#chat', CHAT)
    await page.click('#select')
    await until('the selection', async () => (await page.textContent('body')).includes('selected'))

    const [mine, other, foreign] = [0, 1, 2].map(() => randomBytes(12).toString('hex'))
    await store.publish(`websocket.${company}.${agent}.messages.${CHAT}.x`, JSON.stringify({ value: other }))
    await store.publish(`websocket.${company}2.${agent}.messages.${CHAT}`, JSON.stringify({ value: foreign }))
    await store.publish(`websocket.${company}.${agent}.messages.${CHAT}`, JSON.stringify({ value: mine }))
    await until('the event in the page', async () => (await text('events')).includes(mine))
    // The others were published first, so they would be there by now.
    assert.ok(!(await text('events')).includes(other), "another chat's event is shown")
    assert.ok(!(await text('events')).includes(foreign), "another company's event is shown")

    // With that chat selected the next event of it does appear, so its absence
    // above was the gateway's doing.
    await page.fill('#chat', CHAT + '.x')
    await page.click('#select')
    await until('the other selection', async () => (await page.textContent('body')).includes(`selected ${CHAT}.x`))
    const late = randomBytes(12).toString('hex')
    await store.publish(`websocket.${company}.${agent}.messages.${CHAT}.x`, JSON.stringify({ value: late }))
    await until("the other chat's event", async () => (await text('events')).includes(late))

    // The page publishes too, by its own button.
    const before = (await text('events')).length
    await page.click('#publish')
    await until('the event of the button', async () => (await text('events')).length > before)
    await page.screenshot({ path: path.join(out, `chromium-${scheme}.png`), fullPage: true })
    assert.deepEqual(errors, [])
    await browser.close()
    assert.equal(await pod.stop(), 0, 'the pod ends in order')
  })
}

// identity is who the page logs in as.
async function identity(page) {
  return { company: await page.inputValue('#company'), agent: await page.inputValue('#agent') }
}
