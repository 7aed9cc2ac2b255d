r"""The Velocity Template Language, as API Gateway's mapping templates are written in it.

Our own reader and renderer, since the one in Python's registry speaks another dialect: it unescapes strings, so that
`replaceAll("\\'", "'")`, which AWS's guide tells everybody to write, does nothing; it has Python's truth and Python's
`True`, fails where Velocity says nothing, and lacks most of Java's methods. This is Velocity 1.7 with what AWS makes of
it: `#set`, `#if`, `#elseif`, `#else`, `#foreach`, `#define`, `#break`, `#stop`, comments and `#[[…]]#`. `#macro`,
`#parse`, `#include` and `#evaluate` are refused.
Source: velocity.apache.org/engine/1.7/vtl-reference.html and user-guide.html.
"""

from hubbub.gateway.integrations.velocity.rendering import render
from hubbub.gateway.integrations.velocity.syntax import parse
from hubbub.gateway.integrations.velocity.tree import Block, TemplateError
from hubbub.gateway.integrations.velocity.values import Quiet, Tool, text_of

__all__ = ["Block", "Quiet", "TemplateError", "Tool", "parse", "render", "text_of"]
