// An agent in Node that has our .proto files and nothing else of ours: gRPC by grpc-js, calls by Anthropic's own SDK.
// Prints one JSON object a line; waits, between "acquired" and "revoked", for somebody to revoke its lease.
//
//   node agent.mjs TARGET TOKEN_FILE PROTO_FOLDER
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import Anthropic from "@anthropic-ai/sdk";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const [target, tokenFile, protos] = process.argv.slice(2);
const HEALTH = `syntax = "proto3"; package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse {
  enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
  ServingStatus status = 1;
}
service Health {
  rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
  rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
}`;
const STATUS = protobuf.parse(`syntax = "proto3"; package google.rpc;
message Any { string type_url = 1; bytes value = 2; }
message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }`, { keepCase: true }).root;

const say = (what, more = {}) => console.log(JSON.stringify({ what, ...more }));
const options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const ours = grpc.loadPackageDefinition(
  loader.loadSync("leasehold/v1/lease_service.proto", { ...options, includeDirs: [protos] }),
).leasehold.v1;
const health = grpc.loadPackageDefinition(loader.fromJSON(protobuf.parse(HEALTH).root.toJSON(), options)).grpc.health.v1;
const leases = new ours.LeaseService(target, grpc.credentials.createInsecure());
const doctor = new health.Health(target, grpc.credentials.createInsecure());

function shown(more = {}) {
  const metadata = new grpc.Metadata();
  const all = { leasehold: "1", authorization: `Bearer ${readFileSync(tokenFile, "utf8").trim()}`, ...more };
  for (const [name, value] of Object.entries(all)) if (value) metadata.set(name, value);
  return metadata;
}

function asked(client, method, request, metadata = shown(), limits = { deadline: Date.now() + 60_000 }) {
  return new Promise((resolve, reject) =>
    client[method](request, metadata, limits, (error, answer) => (error ? reject(error) : resolve(answer))),
  );
}

// What a client of any language can learn of a refusal: the code, and the ErrorInfo of the rich error model.
async function refused(attempt) {
  try {
    await attempt;
  } catch (error) {
    const [raw] = error.metadata?.get("grpc-status-details-bin") ?? [];
    const details = raw ? STATUS.lookupType("google.rpc.Status").decode(raw).details : [];
    const info = details.find((one) => one.type_url === "type.googleapis.com/google.rpc.ErrorInfo");
    const read = info && STATUS.lookupType("google.rpc.ErrorInfo").decode(info.value);
    return { code: grpc.status[error.code], reason: read?.reason, domain: read?.domain };
  }
  return { code: "OK" };
}

const ask = {
  request_id: randomUUID(),
  scopes: [{ provider: "anthropic" }],
  limits: [{ metric: "METRIC_COST_MICRO_USD", amount: 50_000 }],
  ttl: { seconds: 300 },
};
say("health", await asked(doctor, "Check", {}, new grpc.Metadata()));
say("health of the service", await asked(doctor, "Check", { service: "leasehold.v1.LeaseService" }, new grpc.Metadata()));
say("health of no service", await refused(asked(doctor, "Check", { service: "no.Such" }, new grpc.Metadata())));
say("without the static metadata", await refused(asked(leases, "AcquireLease", ask, shown({ leasehold: "" }))));
say("without a token", await refused(asked(leases, "AcquireLease", ask, shown({ authorization: "" }))));
say("without a deadline", await refused(asked(leases, "AcquireLease", ask, shown(), {})));
say("with a request id that is none", await refused(asked(leases, "AcquireLease", { ...ask, request_id: "x" })));
say("a lease of nobody", await refused(asked(leases, "GetLease", { name: "leases/000000000000000000000000" })));

const { lease, lease_token: token, endpoints } = await asked(leases, "AcquireLease", ask);
const again = await asked(leases, "AcquireLease", ask);
say("the same request again", { same: again.lease.name === lease.name });
const claude = new Anthropic({ apiKey: token, baseURL: endpoints[0].base_url, maxRetries: 0 });
const question = { model: "claude-haiku-5-5", max_tokens: 20, messages: [{ role: "user", content: "Hello" }] };
const answer = await claude.messages.create(question);
say("called", { text: answer.content[0].text.length > 0 });
const renewed = await asked(leases, "RenewLease", { name: lease.name, request_id: randomUUID() });
say("renewed", { count: renewed.lease.renew_count });

const states = [];
const watch = leases.WatchLease({ name: lease.name }, shown(), { deadline: Date.now() + 120_000 });
watch.on("data", (message) => {
  if (states.length === 0) say("acquired", { name: lease.name });
  states.push(message.lease.state);
});
const end = await new Promise((resolve) => {
  watch.on("end", () => resolve("ended"));
  watch.on("error", (error) => resolve(grpc.status[error.code]));
});
say("revoked", { first: states[0], last: states.at(-1), end });
const after = await claude.messages.create(question).catch((error) => error);
say("called after", { kind: after.constructor.name, status: after.status, reason: after.headers?.get("leasehold-reason") });
say("renewed after", await refused(asked(leases, "RenewLease", { name: lease.name, request_id: randomUUID() })));
leases.close();
doctor.close();
