#!/usr/bin/env node
// Runs the program of this platform's package.
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const platform = `${process.platform}-${process.arch}`;

function find() {
  try {
    return require.resolve(`@vecho/${platform}/bin/vecho`);
  } catch {
    const known = Object.keys(require("./package.json").optionalDependencies);
    const hint = known.includes(`@vecho/${platform}`)
      ? "install it again without --omit=optional; on Linux it needs glibc, so Alpine does not get it"
      : `there are packages for ${known.map((name) => name.slice("@vecho/".length)).join(", ")}`;
    console.error(`vecho: the package @vecho/${platform} is not installed: ${hint}`);
    process.exit(1);
  }
}

// A group of its own: a terminal sends Ctrl-C to the whole group, and with the signal that is passed on below the
// program would get two. The second one ends it at once.
const program = spawn(find(), process.argv.slice(2), { stdio: "inherit", detached: true });

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]) {
  process.on(signal, () => program.kill(signal));
}
program.on("error", (error) => {
  console.error(`vecho: ${error.message}`);
  process.exit(1);
});
program.on("exit", (status, signal) => process.exit(signal ? 128 + constants.signals[signal] : status));
