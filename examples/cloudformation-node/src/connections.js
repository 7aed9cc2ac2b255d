// `$connect` and `$disconnect`: who is there.
import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { DeleteCommand, DynamoDBDocumentClient, PutCommand } from "@aws-sdk/lib-dynamodb";

const table = DynamoDBDocumentClient.from(new DynamoDBClient({}));
const TableName = process.env.TABLE_NAME;

export const connect = async (event) => {
  const { connectionId } = event.requestContext;
  const name = event.queryStringParameters?.name ?? "somebody";
  await table.send(new PutCommand({ TableName, Item: { pk: "connections", sk: connectionId, name } }));
  return { statusCode: 200 };
};

export const disconnect = async (event) => {
  const { connectionId } = event.requestContext;
  await table.send(new DeleteCommand({ TableName, Key: { pk: "connections", sk: connectionId } }));
  return { statusCode: 200 };
};
