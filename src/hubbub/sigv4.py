"""AWS's Signature Version 4: sign a request, and check the signature of one.

Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
"""
