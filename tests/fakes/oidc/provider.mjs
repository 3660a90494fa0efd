// node provider.mjs PORT CLIENT SECRET: a certified OpenID provider whose one client gets workload tokens by client
// credentials, one audience each. Prints "ready" when it serves.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, client, secret] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  clients: [
    { client_id: client, client_secret: secret, grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
  ],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'test-1' }] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: '',
        audience: new URL(resource).hostname,
        accessTokenTTL: 300,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  extraTokenClaims: () => ({ environment: 'test' }),
});
createServer(provider.callback()).listen(Number(port), '127.0.0.1', () => console.log('ready'));
