// The hooks of modules.mjs: a bare name that is not found where Node.js looks is looked for in NODE_PATH's folders.

import path from "node:path";
import { pathToFileURL } from "node:url";

const BARE = /^(?![./]|[a-z][a-z0-9+.-]*:)/i;

// As if a module beside each folder had asked, so that the package's own `exports` are heeded.
const ASKERS = (process.env.NODE_PATH ?? "")
  .split(path.delimiter)
  .filter((folder) => path.basename(folder) === "node_modules")
  .map((folder) => pathToFileURL(path.join(folder, "..", "any.mjs")).href);

function isMissing(error) {
  return error.code === "ERR_MODULE_NOT_FOUND";
}

/** For `registerHooks`, which runs in the thread that asks. */
export function resolveAtOnce(specifier, context, nextResolve) {
  try {
    return nextResolve(specifier, context);
  } catch (error) {
    if (!isMissing(error) || !BARE.test(specifier)) throw error;
    for (const parentURL of ASKERS) {
      try {
        return nextResolve(specifier, { ...context, parentURL });
      } catch (other) {
        if (!isMissing(other)) throw other;
      }
    }
    throw error;
  }
}

/** For `register`, which runs in a thread of its own. */
export async function resolve(specifier, context, nextResolve) {
  try {
    return await nextResolve(specifier, context);
  } catch (error) {
    if (!isMissing(error) || !BARE.test(specifier)) throw error;
    for (const parentURL of ASKERS) {
      try {
        return await nextResolve(specifier, { ...context, parentURL });
      } catch (other) {
        if (!isMissing(other)) throw other;
      }
    }
    throw error;
  }
}
