exports.handler = exports.guard = async () => ({ statusCode: 200 });
