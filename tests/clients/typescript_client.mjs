// The TypeScript SDK. The model is the script in story.py, at the other end of stdin and stdout: one JSON value a line.
import { createInterface } from "node:readline";

// -- docs/clients.md --
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

function overStdio() {
  return new StdioClientTransport({ command: "mcp-code-interpreter" });
}

function overHttp(conversation, url = "http://127.0.0.1:8000/mcp") {
  return new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { "X-Conversation-Id": conversation } },
  });
}

async function connect(transport) {
  const client = new Client({ name: "my-agent", version: "1.0.0" });
  await client.connect(transport);
  return client;
}

/** What to give a model: one text, then images. */
async function call(client, tool, args) {
  const result = await client.callTool({ name: tool, arguments: args }, undefined, { timeout: 120_000 });
  return result.content.filter((block) => block.type === "text" || block.type === "image");
}
// -- end --

const [url, conversation] = process.argv.slice(2);
const client = await connect(url ? overHttp(conversation, url) : overStdio());
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const { tools } = await client.listTools();
say(Object.fromEntries(tools.map((tool) => [tool.name, tool.inputSchema])));
for await (const line of createInterface({ input: process.stdin })) {
  const wanted = JSON.parse(line);
  say(await call(client, wanted.tool, wanted.arguments));
}
await client.close();
