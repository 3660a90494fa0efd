// node console.mjs CHROMIUM ORIGIN LOGIN: somebody at the console with a real browser. Says each step on standard output,
// "tail" when the log is followed and markup may come, and at the end one JSON object of what went wrong.
import { chromium } from 'playwright-core';

const [executablePath, origin, login] = process.argv.slice(2);
const wrong = { violations: [], errors: [], elsewhere: [], dialogs: [] };
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const context = await browser.newContext({ ignoreHTTPSErrors: true });
context.setDefaultTimeout(60_000);
await context.exposeFunction('violated', (what) => wrong.violations.push(what));
await context.addInitScript(() => {
  document.addEventListener('securitypolicyviolation', (event) => {
    window.violated(`${event.violatedDirective} ${event.blockedURI}`);
  });
});
const watched = (page) => {
  page.on('console', (message) => {
    // The provider's own pages are not ours to judge.
    const ours = message.location().url.startsWith(origin);
    if (message.type() === 'error' && ours) wrong.errors.push(`${message.text()} ${message.location().url}`);
  });
  page.on('pageerror', (error) => wrong.errors.push(String(error)));
  page.on('request', (request) => {
    const { hostname } = new URL(request.url());
    if (!['localhost', '127.0.0.1'].includes(hostname)) wrong.elsewhere.push(request.url());
  });
  page.on('dialog', async (dialog) => {
    wrong.dialogs.push(dialog.message());
    await dialog.dismiss();
  });
};
context.on('page', watched);

const page = await context.newPage();
await page.goto(origin);
await page.getByRole('button', { name: 'Sign in' }).click();
await page.locator('input[name=login]').fill(login);
await page.getByRole('button', { name: 'Go' }).click();
await page.getByRole('heading', { name: 'Overview' }).waitFor();
console.log('signed in');

const tail = await context.newPage();
const followed = tail.waitForResponse(`${origin}/audit/live`);
await tail.goto(`${origin}/audit/tail`);
await followed;
console.log('tail');
await tail.locator('#tail', { hasText: 'onerror=alert' }).waitFor();
wrong.images = await tail.locator('#tail img').count();
console.log('markup is text');

await page.getByRole('link', { name: 'Revocations' }).click();
await page.getByRole('button', { name: 'Revoke', exact: true }).click();
await page.getByLabel('Name, a subject may end with *').fill('agents/*');
await page.getByRole('button', { name: 'Look' }).click();
await page.getByText('live leases match').waitFor();
await page.getByLabel('Type how many leases').fill('1');
await page.getByRole('button', { name: 'Revoke subject agents/*' }).click();
await page.locator('#progress', { hasText: '1 of 1 sidecars have acknowledged; 2 leases ended, 1 calls cut; complete' }).waitFor();
console.log('revoked');
await tail.locator('#tail', { hasText: 'revocation.issued' }).waitFor();
console.log('seen in the log');

await page.getByRole('button', { name: 'Sign out' }).click();
await page.getByText('Nobody is signed in here').waitFor();
await page.goto(`${origin}/audit`);
await page.getByText('Nobody is signed in here').waitFor();
console.log('signed out');
// The browser says of a page that was refused what it says of any: 401 is meant here.
wrong.errors = wrong.errors.filter((text) => !text.includes('401'));
console.log(JSON.stringify(wrong));
await browser.close();
