// Imports go one way: a file of src/ imports from lower ranks or from its own folder, and never in a circle.
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { filesUnder } from './setup.mjs'

/** Low to high; what shares a rank does not import each other. */
const RANKS = [
  ['errors', 'events', 'colour'],
  ['net'],
  ['config'],
  ['sys'],
  ['relay', 'ruleset', 'inspect'],
  ['policy'],
  ['proxy'],
  ['apps'],
  ['daemon'],
  ['lab'],
  ['doctor'],
  ['trace'],
  ['cli', 'bench'],
  ['index'],
]
const RANK_OF = new Map(RANKS.flatMap((names, rank) => names.map((name) => [name, rank])))
const LAB_IMPORTERS = new Set(['lab', 'doctor', 'trace', 'cli', 'bench'])
const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*['"](\.[^'"]+)['"]/g
const TYPES_ONLY = /^(?:import|export) type [^'"]*from ['"][^'"]+['"]/gm // erased by the compiler
const isTest = (file) => /\.(?:test|fixture)\.ts$/.test(file)

/** `files`: path below src → text. Returns what is wrong, one line each. */
export function importProblems(files) {
  const graph = new Map()
  const problems = []
  for (const [file, text] of files) {
    const importsOf = (source) => [...source.matchAll(IMPORT)].map((match) => join(dirname(file), match[1]))
    const imports = importsOf(text)
    graph.set(file, importsOf(text.replaceAll(TYPES_ONLY, '')))
    if (partOf(file) === undefined) problems.push(`${file}: its folder has no rank in scripts/imports.mjs`)
    for (const imported of imports) {
      if (!files.has(imported)) problems.push(`${file}: imports ${imported}, which is not there`)
      else if (!isTest(file)) problems.push(...directionProblems(file, imported))
    }
  }
  return [...problems, ...circles(graph)]
}

function partOf(file) {
  const part = file.split('/')[0].replace(/(?:\.\w+)*\.ts$/, '')
  return RANK_OF.has(part) ? part : undefined
}

function directionProblems(file, imported) {
  const [from, to] = [partOf(file), partOf(imported)]
  if (isTest(imported)) return [`${file}: imports ${imported}, which is only for tests`]
  if (from === to || from === undefined || to === undefined) return []
  if (RANK_OF.get(to) >= RANK_OF.get(from)) return [`${file}: imports ${imported}: ${from} is not above ${to}`]
  if (to === 'lab' && !LAB_IMPORTERS.has(from))
    return [`${file}: imports ${imported}: only cli, doctor, trace and tests may use the lab`]
  return []
}

function circles(graph) {
  const problems = []
  const done = new Set()
  const walk = (file, path) => {
    if (path.includes(file)) {
      problems.push(`circle: ${[...path.slice(path.indexOf(file)), file].join(' → ')}`)
      return
    }
    if (done.has(file)) return
    for (const imported of graph.get(file) ?? []) walk(imported, [...path, file])
    done.add(file)
  }
  for (const file of graph.keys()) walk(file, [])
  return problems
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const src = fileURLToPath(new URL('../src', import.meta.url))
  const sources = filesUnder(src).filter((file) => file.endsWith('.ts'))
  const problems = importProblems(
    new Map(sources.map((file) => [file.slice(src.length + 1), readFileSync(file, 'utf8')])),
  )
  for (const problem of problems) process.stderr.write(`${problem}\n`)
  process.stdout.write(problems.length === 0 ? `imports of ${sources.length} files go one way\n` : '')
  process.exitCode = problems.length === 0 ? 0 : 1
}
