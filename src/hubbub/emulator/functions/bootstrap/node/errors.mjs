// Errors as Lambda describes them.

/** An error of the runtime itself, called `Runtime.KIND`. */
export class LambdaError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = `Runtime.${kind}`;
  }
}

/** An error, or whatever else was thrown, as the payload that an invocation answers. */
export function described(error) {
  try {
    if (error instanceof Error || (typeof error?.message === "string" && typeof error?.stack === "string")) {
      return { errorType: error.name, errorMessage: error.message, trace: String(error.stack).split("\n") };
    }
    return { errorType: typeof error, errorMessage: String(error), trace: [] };
  } catch {
    return { errorType: "handled", errorMessage: "An error was thrown that cannot be read.", trace: [] };
  }
}

/** The same for the log: with its code, its cause and whatever else it carries. */
export function detailed(error) {
  try {
    return JSON.stringify(error, (key, value) => (value instanceof Error ? laidOpen(value) : value));
  } catch {
    return JSON.stringify(described(error));
  }
}

function laidOpen(error) {
  const { name, message, code, cause, stack } = error;
  return { errorType: name, errorMessage: message, code, cause, ...error, stack: String(stack).split("\n") };
}
