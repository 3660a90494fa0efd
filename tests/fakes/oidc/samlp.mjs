// node idp.mjs: a SAML identity provider's own code (npm's samlp), asked over standard input: one JSON object of options
// a line, one base64 response a line back.
import { createInterface } from 'node:readline';
import samlp from 'samlp';

for await (const line of createInterface({ input: process.stdin })) {
  const { user, ...options } = JSON.parse(line);
  const profileMapper = () => ({
    getClaims: () => ({ groups: user.groups }),
    getNameIdentifier: () => ({ nameIdentifier: user.name }),
  });
  samlp.getSamlResponse({ ...options, profileMapper }, user, (error, response) => {
    console.log(error ? `!${error}` : Buffer.from(response).toString('base64'));
  });
}
