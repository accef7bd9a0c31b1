import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { licences } from "./licences.ts";

// Where `npm run dev` finds the REST API: the mock by default, a real cloud with AOS_URL.
const cloud = process.env.AOS_URL ?? "http://127.0.0.1:10180";

export default defineConfig({
  plugins: [react(), licences()],
  resolve: { alias: { "~": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: {
    target: "es2022",
    sourcemap: false,
    // Everything stays a file of its own: the content security policy allows no data: fonts or scripts.
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [
            { name: "react", test: /node_modules\/(react|react-dom|scheduler|wouter|@tanstack)\// },
            { name: "mantine", test: /node_modules\/(@mantine|@floating-ui|clsx)\// },
          ],
        },
      },
    },
  },
  server: { host: "127.0.0.1", proxy: { "/api": { target: cloud, secure: false, changeOrigin: false } } },
  test: { environment: "happy-dom", include: ["src/**/*.test.{ts,tsx}"] },
});
