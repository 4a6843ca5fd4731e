// Runs a query in a real PostgreSQL with pgvector, for each of its types. ITEMS is a JSON file of vectors, whose places
// are the ids of the table `items`. Prints the versions and the ids that the query selects, by the type of the column.

import { readFile } from "node:fs/promises";

import { PGlite } from "@electric-sql/pglite";
import { vector } from "@electric-sql/pglite-pgvector";

const vectors = JSON.parse(await readFile(process.env.ITEMS, "utf8"));
const database = await PGlite.create({ extensions: { vector } });
await database.exec("CREATE EXTENSION vector");

async function found(type) {
  await database.exec(`CREATE TABLE items (id integer PRIMARY KEY, embedding ${type})`);
  for (const [id, components] of vectors.entries()) {
    await database.query("INSERT INTO items VALUES ($1, $2)", [id, components && JSON.stringify(components)]);
  }
  const { rows } = await database.query(process.env.QUERY);
  await database.exec("DROP TABLE items");
  return rows.map(({ id }) => id).sort((a, b) => a - b);
}

const [{ server, pgvector }] = (await database.query(
  "SELECT current_setting('server_version') AS server, extversion AS pgvector FROM pg_extension WHERE extname = 'vector'",
)).rows;
console.log(JSON.stringify({ server, pgvector, vector: await found("vector"), halfvec: await found("halfvec") }));
await database.close();
