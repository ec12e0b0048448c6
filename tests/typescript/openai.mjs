// OpenAI's own client, told nothing but the address.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: process.env.DSPYSERVE_KEY, maxRetries: 0 });

const messages = [{ role: "user", content: "Why is the sky blue?" }];
const whole = await client.chat.completions.create({ model: "private", messages });
console.log(whole.choices[0].message.content);

let text = "";
let usage;
const stream = await client.chat.completions.create({
  model: "private",
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
console.log(text);
console.log(usage.total_tokens > 0);

try {
  await client.chat.completions.create({ model: "absent", messages });
} catch (error) {
  console.log(error.status, error.code);
}
