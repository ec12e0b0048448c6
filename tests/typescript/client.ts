// A client that knows the API from its description alone. It compiles, or the description is wrong.
import type { components, paths } from "./api";

type Schemas = components["schemas"];

export async function run(request: Schemas["ExtractRun"]): Promise<Schemas["ExtractResult"]> {
  const response = await fetch("/api/programs/extract", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
  });
  if (!response.ok) {
    const problem: Schemas["Problem"] = await response.json();
    throw new Error(`${problem.code}: ${problem.errors?.map(({ pointer }) => pointer).join() ?? problem.detail}`);
  }
  return response.json();
}

export async function moods(): Promise<("positive" | "neutral" | "negative")[]> {
  const { outputs } = await run({ inputs: { text: "Hello" }, tags: ["typed"], timeout: 5 });
  const name: string = outputs.contact.name;
  const email: string | null | undefined = outputs.contact.email;
  const topics: string[] = outputs.topics;
  console.log(name, email, topics);
  return [outputs.sentiment];
}

export function tell(event: Schemas["QaEvent"]): string {
  switch (event.type) {
    case "run_start":
      return event.model;
    case "token":
      return `${event.field}: ${event.delta}`;
    case "field_reset":
      return event.field;
    case "status":
      return event.message;
    case "lm_end":
    case "module_end":
      return `${event.name} took ${event.duration_ms} ms`;
    case "run_end":
      return event.outputs.answer;
    case "run_error":
      return event.problem.detail;
    case "run_cancelled":
      return event.reason;
    default:
      return event.type;
  }
}

type Batch = paths["/api/programs/qa/batch"]["post"];

export function answers(
  body: Batch["responses"]["200"]["content"]["application/json"],
): (string | undefined)[] {
  return body.results.map((item) => ("outputs" in item ? item.outputs.answer : undefined));
}

export const query: paths["/api/traces"]["get"]["parameters"]["query"] = { status: "failed", limit: 20 };
export const opinion: Schemas["FeedbackRequest"] = { name: "helpful", score: 1 };

// @ts-expect-error - an input is missing
export const incomplete: Schemas["QaRun"] = { inputs: {} };
// @ts-expect-error - an input is of another type
export const mistyped: Schemas["QaRun"] = { inputs: { question: 3 } };
// @ts-expect-error - no such option
export const unknown: Schemas["QaRun"] = { inputs: { question: "q" }, temperature: 1 };
// @ts-expect-error - no such status
export const wrong: paths["/api/traces"]["get"]["parameters"]["query"] = { status: "good" };
// @ts-expect-error - no such event
export const event: Schemas["QaEvent"]["type"] = "run_begin";
