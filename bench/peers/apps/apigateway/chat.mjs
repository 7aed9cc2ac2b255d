// The function of all routes. Who is there is kept in a folder, a file each, where a table would be on AWS.
import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ApiGatewayManagementApiClient, PostToConnectionCommand } from "@aws-sdk/client-apigatewaymanagementapi";

const folder = process.env.CONNECTIONS;
const api = new ApiGatewayManagementApiClient({
  endpoint: process.env.ENDPOINT,
  region: "eu-central-1",
  credentials: { accessKeyId: "none", secretAccessKey: "none" },
});

export async function handler(event) {
  const { connectionId, routeKey } = event.requestContext;
  if (routeKey === "$connect") {
    await writeFile(join(folder, encodeURIComponent(connectionId)), "");
  } else if (routeKey === "$disconnect") {
    await rm(join(folder, encodeURIComponent(connectionId)), { force: true });
  } else {
    const Data = JSON.parse(event.body).text;
    const listeners = (await readdir(folder)).map(decodeURIComponent);
    await Promise.allSettled(
      listeners.map((ConnectionId) => api.send(new PostToConnectionCommand({ ConnectionId, Data }))),
    );
  }
  return { statusCode: 200 };
}
