// An OpenID provider (npm oidc-provider, certified by the OpenID Foundation) on a free loopback port, for tests.
//   node provider.mjs REDIRECT_URI CLIENT_SECRET      prints its issuer; ends when its input does
// Anybody may log in with any password: the name before a dot is the role ("clinician.dupont"), nobody else has one.
import http from 'node:http';
import Provider from 'oidc-provider';

const [redirect, secret] = process.argv.slice(2);
const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const claims = (id) => ({ sub: `s-${id}`, preferred_username: id, roles: [`nf-${id.split('.')[0]}`] });
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'neutroflag',
      client_secret: secret,
      redirect_uris: [redirect],
      response_types: ['code'],
      grant_types: ['authorization_code'],
    }],
    claims: { openid: ['sub'], profile: ['preferred_username', 'roles'] },
    conformIdTokenClaims: false, // roles stand in the ID token, as at most providers of hospitals
    pkce: { required: () => true, methods: ['S256'] },
    features: { devInteractions: { enabled: true }, rpInitiatedLogout: { enabled: true } },
    cookies: { keys: ['of a test'] },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => claims(id) }),
    // Nobody is asked for consent: the hospital's own programs need none.
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope('openid profile');
      await grant.save();
      return grant;
    },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
process.stdin.resume().on('end', () => process.exit(0));
