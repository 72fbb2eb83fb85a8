/** The YAML parser by the one door that there is to it: the build puts its eighty files into this one (scripts/bundle.mjs). */
export {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml'
