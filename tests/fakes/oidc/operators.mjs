// node operators.mjs PORT SETTINGS: a certified OpenID provider at which people sign in. SETTINGS is JSON:
// {clients, resource, id_token_seconds}. Prints "ready" when it serves.
//
// Its one page asks for a name, and believes it; the name "nobody" is refused. POST /control {subject, groups} gives a
// person groups, {subject, gone: true} removes one, as whoever runs the directory would.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, settings] = process.argv.slice(2);
const { clients, resource, id_token_seconds: idTokenSeconds } = JSON.parse(settings);
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const groups = new Map();
const gone = new Set();
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  clients,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'people-1' }] },
  claims: { openid: ['sub'], groups: ['groups'] },
  scopes: ['openid', 'offline_access', 'groups'],
  conformIdTokenClaims: false,
  cookies: { keys: ['of the tests'] },
  ttl: { IdToken: idTokenSeconds, AccessToken: 300, Session: 3600, Grant: 3600, Interaction: 600, RefreshToken: 3600 },
  findAccount: (_, subject) =>
    gone.has(subject)
      ? undefined
      : { accountId: subject, claims: () => ({ sub: subject, groups: groups.get(subject) ?? [] }) },
  extraTokenClaims: (_, token) => ({ groups: groups.get(token.accountId) ?? [] }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, asked) => {
        if (asked !== resource) throw new Error('no such resource');
        const server = { scope: 'groups', audience: new URL(resource).hostname, accessTokenTTL: idTokenSeconds };
        return { ...server, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
      },
    },
  },
});

// A console of a test listens where a port is free: its redirect address is known but for the port.
const { redirectUriAllowed } = provider.Client.prototype;
provider.Client.prototype.redirectUriAllowed = function allowed(uri) {
  const { protocol, hostname, pathname } = new URL(uri);
  if (protocol === 'https:' && hostname === 'localhost') {
    return this.redirectUris.includes(`https://localhost${pathname}`);
  }
  return redirectUriAllowed.call(this, uri);
};

async function bodyOf(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}

async function interact(request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    if (request.method === 'GET') {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><title>Sign in</title><form method="post"><input name="login"><button>Go</button></form>');
      return;
    }
    const login = new URLSearchParams(await bodyOf(request)).get('login');
    const refusal = { error: 'access_denied', error_description: 'not you' };
    await provider.interactionFinished(request, response, login === 'nobody' ? refusal : { login: { accountId: login } });
    return;
  }
  const known = grantId ? await provider.Grant.find(grantId) : undefined;
  const grant = known ?? new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  const { missingOIDCScope, missingResourceScopes } = prompt.details;
  if (missingOIDCScope) grant.addOIDCScope(missingOIDCScope.join(' '));
  for (const [name, scopes] of Object.entries(missingResourceScopes ?? {})) grant.addResourceScope(name, scopes.join(' '));
  await provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

const serve = provider.callback();
createServer(async (request, response) => {
  if (request.url === '/control') {
    const told = JSON.parse(await bodyOf(request));
    if (told.gone) gone.add(told.subject);
    else groups.set(told.subject, told.groups);
    response.end('{}');
  } else if (request.url.startsWith('/interaction/')) {
    interact(request, response).catch((error) => {
      response.statusCode = 400;
      response.end(String(error));
    });
  } else serve(request, response);
}).listen(Number(port), '127.0.0.1', () => console.log('ready'));
