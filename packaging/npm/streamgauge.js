#!/usr/bin/env node
// Starts the binary of the package for this system, in this process's place as far as Node.js can: same terminal, signals passed
// on, same exit.
"use strict";
const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const isMusl = process.platform === "linux" && !process.report.getReport().header.glibcVersionRuntime;
const name = `streamgauge-${process.platform}-${process.arch}${isMusl ? "-musl" : ""}`;

let binary;
try {
  binary = require.resolve(`${name}/streamgauge`);
} catch {
  console.error(`streamgauge: the package ${name} is not installed. Either there is none for this system, or optional dependencies were left out.`);
  process.exit(1);
}

const child = spawn(binary, process.argv.slice(2), { stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"]) process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  console.error(`streamgauge: ${binary} cannot be started: ${error.message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => process.exit(signal ? 128 + constants.signals[signal] : code));
