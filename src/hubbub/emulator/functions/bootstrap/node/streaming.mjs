// Handlers that write to a stream (`awslambda.streamifyResponse`): what they write is sent as it comes.

import { PassThrough } from "node:stream";

import { openResponse, postError } from "./api.mjs";
import { sayError } from "./console.mjs";
import { LambdaError, described } from "./errors.mjs";

const HTTP_TYPE = "application/vnd.awslambda.http-integration-response";

/** Puts an HTTP response's status and headers before its body. */
export class HttpResponseStream {
  static from(stream, prelude) {
    stream.setContentType(HTTP_TYPE);
    stream.write(Buffer.concat([Buffer.from(JSON.stringify(prelude)), Buffer.alloc(8)]));
    return stream;
  }
}

/** Run such a handler to its end; `onEmpty` is given what to do should the event loop have nothing left before. */
export async function runStreaming(handler, id, event, context, onEmpty) {
  let contentType = "application/octet-stream";
  let response = null; // null until something was written
  const stream = new PassThrough();
  stream.setContentType = (type) => {
    contentType = type;
  };
  const begin = () => {
    response = openResponse(id, contentType);
    stream.pipe(response.request, { end: false });
  };
  stream.once("readable", begin);
  const finished = new Promise((resolve) => stream.once("end", resolve));
  const stalled = new Promise((resolve, reject) => {
    onEmpty(() => reject(new LambdaError("NodeJsExit", "The response stream was never ended.")));
  });
  try {
    await Promise.race([handler(event, stream, context), stalled]);
    if (!stream.writableEnded) {
      throw new Error("Response stream is not finished.");
    }
    await finished;
    response.request.end();
  } catch (error) {
    sayError("Invoke Error", error);
    if (response === null) {
      stream.off("readable", begin); // it would begin a response now that never ends, and hold up what follows
      return postError(id, described(error));
    }
    const document = described(error);
    response.request.addTrailers({
      "Lambda-Runtime-Function-Error-Type": document.errorType,
      "Lambda-Runtime-Function-Error-Body": Buffer.from(JSON.stringify(document)).toString("base64"),
    });
    response.request.end();
  }
  await response.taken;
}
