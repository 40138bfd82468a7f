// A web app as the original system's users wrote them: load a model by its id, then chat with it.
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

const { base, token, model } = Object.fromEntries(new URLSearchParams(location.search));
const headers = { Authorization: `Bearer ${token}` };

async function load() {
  const response = await fetch(`${base}/api/v1/models/${model}/load`, { headers });
  if (!response.ok) throw new Error((await response.json()).error.message);
  return response.json();
}

async function chat(content, show) {
  const response = await fetch(`${base}/api/v1/chat/completions`, {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({
      model,
      messages: [{ role: "user", content }],
      temperature: 0,
      max_tokens: 40,
      stream: true,
    }),
  });
  if (!response.ok) throw new Error((await response.json()).error.message);
  const lines = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let text = "";
  for (let { value, done } = await lines.read(); !done; { value, done } = await lines.read()) {
    const parts = (pending + value).split("\n");
    pending = parts.pop();
    for (const line of parts) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      text += JSON.parse(line.slice(6)).choices[0]?.delta?.content ?? "";
      show(text);
    }
  }
}

function App() {
  const [status, setStatus] = useState("new");
  const [answer, setAnswer] = useState("");
  async function ask() {
    try {
      setStatus("loading");
      setStatus((await load()).status);
      await chat("Who are you?", setAnswer);
      setStatus("done");
    } catch (error) {
      setStatus(`failed: ${error.message}`);
    }
  }
  return (
    <main>
      <button onClick={ask}>Ask</button>
      <p id="status">{status}</p>
      <p id="answer">{answer}</p>
    </main>
  );
}

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
