"""The authorizer: a JWT that the API backend has signed says who connects, and to which room."""

import os

import jwt


def handler(event, context):
    token = event["queryStringParameters"]["token"]
    try:
        claims = jwt.decode(token, os.environ["JWT_SECRET"], algorithms=["HS256"], issuer=os.environ["ALLOWED_ISSUER"])
    except jwt.ExpiredSignatureError as error:
        raise Exception("Unauthorized") from error  # the exact text makes API Gateway answer 401
    except jwt.InvalidTokenError as error:
        print(f"refused: {error}")
        return policy("nobody", "Deny", event["methodArn"])
    return policy(claims["sub"], "Allow", event["methodArn"], room=claims.get("room", "lobby"))


def policy(principal, effect, resource, **context):
    return {
        "principalId": principal,
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}],
        },
        "context": context,
    }
