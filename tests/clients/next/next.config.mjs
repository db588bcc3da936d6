// What people do in production: the app's own origin passes API calls on. Next.js fixes where to when it builds; the test puts
// real addresses in place of these.
const pass = (name) => ({ source: `/${name}/:path*`, destination: `http://${name}.invalid/:path*` });

export default { rewrites: async () => [pass("gauged"), pass("bare")] };
