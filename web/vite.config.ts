/**
 * How the two pages are built and served while developing.
 *
 * In: `index.html` (room list) and `watch.html` (player). Out: `dist/`, which the edge embeds: the
 * pages at its root, everything else content-hashed below `/assets/` (a reserved app name, so it can
 * never be a room). The content security policy of the built pages is written here and nowhere else.
 */
import type { IncomingMessage } from 'node:http';
import { defineConfig, type Plugin } from 'vite';

/** Where `npm run dev` finds a running edge. */
const EDGE = process.env['TIDEWATER_URL'] ?? 'http://127.0.0.1:8080';

/**
 * No inline code or style, nothing from another host. `blob:` is the MediaSource of both players;
 * `ws: wss:` because Safari before 15.4 does not count WebSockets of the same host as 'self'.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "media-src 'self' blob:",
  "connect-src 'self' ws: wss:",
  "base-uri 'none'",
  "form-action 'self'",
].join('; ');

/** Puts the policy into the built pages; the dev server needs inline code for hot reload. */
function contentSecurityPolicy(): Plugin {
  return {
    name: 'tidewater-csp',
    apply: 'build',
    transformIndexHtml: () => [
      {
        tag: 'meta',
        attrs: { 'http-equiv': 'Content-Security-Policy', content: CONTENT_SECURITY_POLICY },
        injectTo: 'head-prepend',
      },
    ],
  };
}

/** Serves `watch.html` under every `/watch/{app}/{name}`, as the edge does. */
function watchPage(): Plugin {
  return {
    name: 'tidewater-watch-page',
    apply: 'serve',
    configureServer(server) {
      server.middlewares.use((request, _response, next) => {
        if (request.url?.startsWith('/watch/')) request.url = '/watch.html';
        next();
      });
    },
  };
}

/** The room list is `/` too, told apart by what the request accepts. */
function wantsJson(request: IncomingMessage): boolean {
  return request.headers.accept?.startsWith('application/json') ?? false;
}

export default defineConfig({
  appType: 'mpa',
  plugins: [contentSecurityPolicy(), watchPage()],
  server: {
    proxy: {
      '^/[^/]+/.+\\.(m3u8|m4s|mp4|flv)(\\?.*)?$': { target: EDGE, ws: true },
      '^/$': { target: EDGE, bypass: (request) => (wantsJson(request) ? undefined : '/index.html') },
    },
  },
  build: {
    target: ['es2020', 'chrome87', 'firefox78', 'safari14'],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: { index: 'index.html', watch: 'watch.html' },
      output: {
        // The libraries change less often than the pages: a file of their own stays in the viewer's cache.
        codeSplitting: { groups: [{ name: 'hls', test: /node_modules\/hls\.js/ }] },
      },
    },
  },
  test: { include: ['src/**/*.test.ts', 'fallback/**/*.test.ts'] },
} as Parameters<typeof defineConfig>[0]);
