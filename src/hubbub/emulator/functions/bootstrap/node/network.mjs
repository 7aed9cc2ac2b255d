// Leads connections to `API.execute-api.REGION.amazonaws.com:443` to where _HUBBUB_EXECUTE_API says: `API=host:port` for
// each API, with commas between, or one `host:port` for all; those to other names of AWS's to _HUBBUB_AWS, `host:port`,
// for SDKs that do not heed AWS_ENDPOINT_URL.
//
// Node.js takes no notice of HTTPS_PROXY. The name that TLS asks for and checks stays what the code said, so the
// certificate there must be for it, and of an authority in NODE_EXTRA_CA_CERTS.

import net from "node:net";

const ADDRESSES = new Map(
  [...(process.env._HUBBUB_EXECUTE_API ?? "").matchAll(/(?:([a-z0-9]+)=)?([^,=]+):(\d+)/g)].map(
    ([, api = "", host, port]) => [api, { host, port: Number(port) }],
  ),
);
const NAMES = /^([a-z0-9]+)\.execute-api\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$/i;

const SERVICES = /^(.+):(\d+)$/.exec(process.env._HUBBUB_AWS ?? "");
const SERVICE_NAMES = /\.amazonaws\.com(\.cn)?$/i;

if (ADDRESSES.size || SERVICES) {
  const connect = net.Socket.prototype.connect; // what net, tls, http2 and fetch all come down to
  net.Socket.prototype.connect = function (...given) {
    // Either (options, …), or one array of the same, as net.connect and tls.connect pass it on.
    const passed = Array.isArray(given[0]) ? given[0] : given;
    const address = typeof passed[0] === "object" ? addressOf(passed[0]) : undefined;
    if (address) passed[0] = { ...passed[0], ...address, path: undefined, lookup: undefined };
    return connect.apply(this, given);
  };
}

function addressOf(options) {
  const host = options.host ?? "";
  if (Number(options.port) !== 443) return undefined;
  const api = NAMES.exec(host)?.[1].toLowerCase();
  if (api) return ADDRESSES.get(api) ?? ADDRESSES.get("");
  return SERVICES && SERVICE_NAMES.test(host) ? { host: SERVICES[1], port: Number(SERVICES[2]) } : undefined;
}
