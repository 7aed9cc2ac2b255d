// Lets ES modules be found by way of NODE_PATH, where Lambda has its SDK and layers have their packages.
//
// Node.js does so for CommonJS alone; Lambda's own runtimes do it for both since nodejs18.x. Hooks of either kind came with
// Node.js 18.19 and 20.6, so an older one finds what is in the function's folder only.

import * as module from "node:module";
import { resolveAtOnce } from "./node_path.mjs";

if (process.env.NODE_PATH) {
  if (typeof module.registerHooks === "function") {
    module.registerHooks({ resolve: resolveAtOnce });
  } else if (typeof module.register === "function") {
    module.register("./node_path.mjs", import.meta.url);
  }
}
