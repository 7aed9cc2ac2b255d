"""The chat: one short async function per action."""
