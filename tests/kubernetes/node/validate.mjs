// Whether the operators would take these objects: a JSON list on stdin, of kinds of the Prometheus operator and of KEDA. Their
// schemas are made from the operators' CRDs. Ends with an error that names each object that is not.
import { readFileSync } from "node:fs";
import * as monitoring from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import * as keda from "@kubernetes-models/keda/keda.sh/v1alpha1";

const kinds = { "monitoring.coreos.com/v1": monitoring, "keda.sh/v1alpha1": keda };
let failed = 0;
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const Kind = kinds[object.apiVersion]?.[object.kind];
  try {
    if (!Kind) throw new Error("no schema for it here");
    new Kind(object).validate();
  } catch (error) {
    failed += 1;
    console.error(`${object.kind} ${object.metadata?.name}: ${error.message}`);
  }
}
process.exit(failed ? 1 : 0);
