// Drives one headless Chromium for a test in Rust (tests/src/browser.rs): one JSON object a line in, one out.
// driver.mjs PROFILE_FOLDER ORIGIN
//
// Whatever a page should not do is kept, and given out by `complaints`: errors on its console (a violation of the content
// security policy is one), exceptions, requests to any other origin.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const [profile, origin] = process.argv.slice(2)
const { chromium } = createRequire(new URL('../../cwebd/ui/package.json', import.meta.url))('playwright-core')

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CAIRN_TEST_CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
  viewport: { width: 1200, height: 800 },
})
const page = context.pages()[0] ?? (await context.newPage())
const devtools = await context.newCDPSession(page)
const complaints = []
page.on('console', (message) => {
  if (['error', 'warning'].includes(message.type())) complaints.push(`console ${message.type()}: ${message.text()}`)
})
page.on('pageerror', (error) => complaints.push(`exception: ${error}`))
page.on('request', (request) => {
  if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith('data:')) complaints.push(`request: ${request.url()}`)
})

/** By the inspector, which the page's content security policy does not bind. */
async function evaluate(expression) {
  const answer = await devtools.send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true })
  if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text)
  return answer.result.value
}

const commands = {
  goto: async ({ path }) => (await page.goto(origin + path, { waitUntil: 'domcontentloaded' })).status(),
  eval: ({ js }) => evaluate(js),
  /** Until the expression is true; the moment it was. */
  async wait({ js, ms }) {
    for (const end = Date.now() + ms; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 5))) {
      // While the page is being left there is nothing to look at.
      if (await evaluate(js).catch(() => false)) return Date.now()
    }
    throw new Error(`not within ${ms} ms: ${js}; the page says: ${await evaluate('document.body.innerText')}`)
  },
  type: ({ selector, text }) => page.fill(selector, text),
  press: ({ key }) => page.keyboard.press(key),
  click: ({ selector }) => page.click(selector),
  async look({ width, height, scheme }) {
    await page.setViewportSize({ width, height })
    await page.emulateMedia({ colorScheme: scheme })
  },
  async screenshot({ path, whole }) {
    // Colours that are on their way to others belong to no state.
    await evaluate('Promise.allSettled(document.getAnimations().map((animation) => animation.finished)).then(() => true)')
    await page.screenshot({ path, fullPage: whole })
  },
  complaints: () => complaints.splice(0),
}

process.stdout.write('{"ok":true}\n')
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...given } = JSON.parse(line)
  const answer = await Promise.resolve(commands[command](given)).then(
    (value) => ({ ok: true, value: value ?? null }),
    (error) => ({ ok: false, error: String(error) }),
  )
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
await context.close()
