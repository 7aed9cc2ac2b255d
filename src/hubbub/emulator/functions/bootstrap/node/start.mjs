// Runs a Node.js function: loads its handler, then asks for one invocation after the other and answers it.
//
// Behaves as Lambda's own runtime does: docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html. Started with the
// function's folder as the working directory, and needs nothing but Node.js 18.

import { postError, postInitError, postResult, next } from "./api.mjs";
import { setRequestId, sayError } from "./console.mjs";
import { isStreaming, load } from "./handler.mjs";
import { LambdaError, described } from "./errors.mjs";
import { runStreaming } from "./streaming.mjs";
import "./modules.mjs";
import "./network.mjs";

let whenEmpty = null; // what to do when the event loop has nothing left; null between invocations
let fail = failInit; // how an error ends that nobody caught

process.on("beforeExit", () => {
  const act = whenEmpty;
  whenEmpty = null;
  act?.();
});
process.on("uncaughtException", (error) => {
  sayError("Uncaught Exception", error);
  fail(error, 129);
});
process.on("unhandledRejection", (reason) => {
  const error = new LambdaError("UnhandledPromiseRejection", String(reason));
  error.reason = reason;
  sayError("Unhandled Promise Rejection", error);
  fail(error, 128);
});

async function failInit(error, status) {
  await postInitError(described(error));
  process.exit(status);
}

/** Run a handler that returns, or calls back: its outcome as `{ result }` or `{ error }`. */
function run(handler, event, context) {
  return new Promise((settle) => {
    let called = false;
    const answer = (error, result) => settle(error == null ? { result } : { error });
    const once = (act) => (...given) => {
      if (!called) {
        called = true;
        act(...given);
      }
    };
    const done = once(answer);
    const callback = once((error, result) => {
      if (error == null && context.callbackWaitsForEmptyEventLoop) {
        whenEmpty = () => answer(null, result);
      } else {
        answer(error, result);
      }
    });
    const isAsync = handler.constructor?.name === "AsyncFunction";
    whenEmpty = () => (isAsync ? answer(neverSettled()) : answer(null, null));
    Object.assign(context, {
      callbackWaitsForEmptyEventLoop: true,
      done,
      succeed: (result) => done(null, result),
      fail: (error) => done(error ?? "handled"),
    });
    try {
      const returned = handler(event, context, callback);
      if (typeof returned?.then === "function") {
        returned.then(context.succeed, context.fail);
      }
    } catch (error) {
      done(error ?? "handled");
    }
  });
}

function neverSettled() {
  return new LambdaError(
    "NodeJsExit",
    "The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise " +
      "that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes",
  );
}

/** What a handler is told besides its event. */
function contextOf(invocation) {
  const env = process.env;
  return {
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    awsRequestId: invocation.requestId,
    invokedFunctionArn: invocation.arn,
    clientContext: invocation.clientContext && JSON.parse(invocation.clientContext),
    identity: undefined,
    getRemainingTimeInMillis: () => invocation.deadline - Date.now(),
  };
}

/** Serve one invocation to its end. */
async function serve(handler, invocation) {
  const id = invocation.requestId;
  setRequestId(id);
  process.env._X_AMZN_TRACE_ID = invocation.traceId;
  fail = async (error, status) => {
    await postError(id, described(error));
    process.exit(status);
  };
  try {
    const event = JSON.parse(invocation.body);
    const context = contextOf(invocation);
    if (isStreaming(handler)) {
      await runStreaming(handler, id, event, context, (act) => {
        whenEmpty = act;
      });
    } else {
      await answer(id, await run(handler, event, context));
    }
  } catch (error) {
    await answer(id, { error });
  }
  whenEmpty = null;
  fail = (error, status) => process.exit(status); // there is nothing to answer
}

async function answer(id, { result, error }) {
  if (error === undefined) {
    try {
      return await postResult(id, JSON.stringify(result === undefined ? null : result));
    } catch (wrong) {
      error = wrong; // what JSON cannot say, such as a circle
    }
  }
  sayError("Invoke Error", error);
  await postError(id, described(error));
}

try {
  const handler = await load(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER);
  for (;;) {
    await serve(handler, await next());
  }
} catch (error) {
  sayError("Uncaught Exception", error);
  await fail(error, 1);
}
