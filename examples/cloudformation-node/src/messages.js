// A message goes to everybody who is connected.
import {
  ApiGatewayManagementApiClient,
  GoneException,
  PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { DeleteCommand, DynamoDBDocumentClient, paginateQuery } from "@aws-sdk/lib-dynamodb";

const table = DynamoDBDocumentClient.from(new DynamoDBClient({}));
const TableName = process.env.TABLE_NAME;

export const handler = async (event) => {
  const { apiId, stage, connectionId } = event.requestContext;
  const endpoint = `https://${apiId}.execute-api.${process.env.AWS_REGION}.amazonaws.com/${stage}`;
  const api = new ApiGatewayManagementApiClient({ endpoint });
  const { text } = JSON.parse(event.body);
  const everybody = [];
  const pages = paginateQuery(
    { client: table },
    { TableName, KeyConditionExpression: "pk = :pk", ExpressionAttributeValues: { ":pk": "connections" } },
  );
  for await (const page of pages) everybody.push(...page.Items);
  const name = everybody.find(({ sk }) => sk === connectionId)?.name;
  const Data = JSON.stringify({ type: "message", name, text });
  await Promise.all(
    everybody.map(async ({ sk }) => {
      try {
        await api.send(new PostToConnectionCommand({ ConnectionId: sk, Data }));
      } catch (error) {
        if (!(error instanceof GoneException)) throw error;
        await table.send(new DeleteCommand({ TableName, Key: { pk: "connections", sk } }));
      }
    }),
  );
  return { statusCode: 200 };
};
