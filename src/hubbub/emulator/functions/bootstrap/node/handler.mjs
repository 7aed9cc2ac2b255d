// Finds a function's handler: `src/app.handler` is the export `handler` of src/app.js, .mjs or .cjs in its folder.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

import { LambdaError } from "./errors.mjs";
import { HttpResponseStream } from "./streaming.mjs";

const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
const NO_CALLBACKS_FROM = 24;
const TYPESCRIPT = [".ts", ".mts", ".cts", ".tsx"];

globalThis.awslambda = {
  streamifyResponse: (handler) => Object.assign(handler, { [STREAMING]: "response" }),
  HttpResponseStream,
};

/** Whether a handler writes to a stream instead of returning. */
export function isStreaming(handler) {
  return handler[STREAMING] === "response";
}

/** The function that `handler` names in the folder `root`; throws what the invocations are to answer. */
export async function load(root, handler) {
  if (handler.includes("..")) {
    const words = "is not a valid handler name. Use absolute paths when specifying root directories in handler names.";
    throw new LambdaError("MalformedHandlerName", `'${handler}' ${words}`);
  }
  const slash = handler.lastIndexOf("/") + 1;
  const [module, ...names] = handler.slice(slash).split(".");
  if (names.length === 0) {
    throw new LambdaError("MalformedHandlerName", `Bad handler '${handler}': it has no dot before the export's name`);
  }
  const exported = await imported(root, handler.slice(0, slash), module);
  const found = names.reduce((value, name) => value?.[name], exported);
  if (!found) {
    throw new LambdaError("HandlerNotFound", `${handler} is undefined or not exported`);
  }
  if (typeof found !== "function") {
    throw new LambdaError("HandlerNotFound", `${handler} is not a function`);
  }
  forbidCallback(found);
  return found;
}

/** Lambda's Node.js 24 and later take no handler with a third parameter. */
function forbidCallback(handler) {
  const version = /nodejs(\d+)/.exec(process.env.AWS_EXECUTION_ENV)?.[1];
  if (Number(version) >= NO_CALLBACKS_FROM && handler.length >= 3 && !isStreaming(handler)) {
    throw new LambdaError(
      "CallbackHandlerDeprecated",
      "AWS Lambda has removed support for callback-based function handlers starting with Node.js 24: " +
        "let the handler be async, and have two parameters.",
    );
  }
}

async function imported(root, folder, module) {
  try {
    return await importOf(root, folder, module);
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw Object.assign(new LambdaError("UserCodeSyntaxError", String(error)), { stack: error.stack });
    }
    const missing = /'(@aws-sdk\/[^'/]+|@smithy\/[^'/]+)/.exec(error?.message)?.[1];
    if (missing && /MODULE_NOT_FOUND$/.test(error.code)) {
      const hint = `Lambda's own image has ${missing}; here it comes from the function's folder: npm install ${missing}`;
      throw new LambdaError("ImportModuleError", `${error} (${hint})`);
    }
    if (error?.code === "MODULE_NOT_FOUND") {
      throw new LambdaError("ImportModuleError", String(error));
    }
    throw error;
  }
}

async function importOf(root, folder, module) {
  const file = path.resolve(root, folder, module);
  const require = createRequire(import.meta.url);
  if (existsSync(`${file}.js`)) {
    return isModule(path.dirname(file)) ? import(pathToFileURL(`${file}.js`)) : require(`${file}.js`);
  }
  if (existsSync(`${file}.mjs`)) {
    return import(pathToFileURL(`${file}.mjs`));
  }
  if (existsSync(`${file}.cjs`)) {
    return require(`${file}.cjs`);
  }
  const source = TYPESCRIPT.map((ending) => file + ending).find(existsSync);
  if (source) {
    const words = "build it to JavaScript first, and let the function's folder be what comes of it";
    throw new LambdaError("ImportModuleError", `${source} is TypeScript: ${words}`);
  }
  return require(require.resolve(`./${module}`, { paths: [path.resolve(root, folder)] }));
}

/** Whether .js files in a folder are ES modules: what the nearest package.json says. */
function isModule(folder) {
  if (path.basename(folder) === "node_modules") {
    return false;
  }
  const file = path.join(folder, "package.json");
  if (existsSync(file)) {
    return JSON.parse(readFileSync(file, "utf8")).type === "module";
  }
  const parent = path.dirname(folder);
  return parent !== folder && isModule(parent);
}
