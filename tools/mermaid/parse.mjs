// Has Mermaid's own parser read every diagram of the Markdown files that are named, and says which it refuses.
import fs from "node:fs";
import { JSDOM } from "jsdom";

// Mermaid cleans the texts of labels, and looks for a document to do so.
const dom = new JSDOM("");
globalThis.window = dom.window;
globalThis.document = dom.window.document;
const { default: mermaid } = await import("mermaid");

let diagrams = 0;
for (const file of process.argv.slice(2)) {
  for (const [, diagram] of fs.readFileSync(file, "utf8").matchAll(/^```mermaid\n(.*?)^```/gms)) {
    diagrams += 1;
    try {
      await mermaid.parse(diagram);
    } catch (error) {
      console.error(`${file}: ${error.message}\n${diagram}`);
      process.exitCode = 1;
    }
  }
}
console.log(`${diagrams} diagrams`);
