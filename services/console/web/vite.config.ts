import adapter from '@sveltejs/adapter-static';
import { sveltekit } from '@sveltejs/kit/vite';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [
    sveltekit({
      adapter: adapter({ pages: '../static', assets: '../static', fallback: 'index.html', precompress: true }),
      // Pages are served from any depth of path, so assets are named from the root.
      paths: { relative: false }
    })
  ],
  build: { target: 'es2022', assetsInlineLimit: 0 },
  server: { proxy: { '^/(v1|console|generate|tunesmith)(/|$)': 'http://127.0.0.1:8080' } },
  test: { include: ['src/**/*.test.ts'], environment: 'node' }
});
