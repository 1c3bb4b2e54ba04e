// Reads [{"language": "promql" or "logql", "expr": ...}] and prints, for each, where it is wrong.
import { parser as logql } from '@grafana/lezer-logql';
import { parser as promql } from '@prometheus-io/lezer-promql';
import { readFileSync } from 'node:fs';

const parsers = { logql, promql };
const queries = JSON.parse(readFileSync(0, 'utf8'));
const wrong = queries.map(({ language, expr }) => {
  const places = [];
  parsers[language].parse(expr).iterate({
    enter: (node) => {
      if (node.type.isError) places.push(expr.slice(Math.max(0, node.from - 20), node.to + 20));
    },
  });
  return places;
});
console.log(JSON.stringify(wrong));
