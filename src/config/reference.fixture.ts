/** The part of JSON Schema that fileSchema() uses. */
interface Schema {
  readonly description?: string
  readonly enum?: readonly string[]
  readonly type?: string | readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema | boolean
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
}

/** Maps that have the keys of another one, and are not told again. */
const TOLD_BEFORE: readonly (readonly [RegExp, string])[] = [
  [/\.exclude$/, 'Its keys: `interfaces`, `sources`, `destinations`, `ports`, `uids`, `cgroups`, `fwmarks`.'],
  [/^policy\.rules\[\]\.timeouts$/, 'Its keys: those of `listeners[].timeouts`.'],
  [/^policy\.otherwise$/, 'Its keys: those of `policy.rules[]` from `then` on.'],
]

/** The tables of docs/configuration.md: one for each key of the file, with a row for each key within. */
export function referenceTables(file: object): string {
  const { properties = {} } = file as Schema
  return Object.entries(properties)
    .map(([key, schema]) => {
      const rows = rowsOf(key, schema)
      return `## ${key}\n\n| key | what |\n|---|---|\n${rows.join('\n')}\n`
    })
    .join('\n')
}

function rowsOf(path: string, schema: Schema): string[] {
  const map = mapOf(schema)
  const [, told] = TOLD_BEFORE.find(([pattern]) => pattern.test(path)) ?? []
  const row = `| \`${path}\` | ${[schema.description ?? '', told ?? '', kindOf(schema)].filter(Boolean).join(' ').replaceAll('|', '\\|')} |`
  if (map === undefined || told !== undefined) return [row]
  const { suffix, properties } = map
  return [row, ...Object.entries(properties).flatMap(([key, inner]) => rowsOf(`${path}${suffix}.${key}`, inner))]
}

/** The keys within, where there are some: of the map itself, of each in a list, or of each by a name. */
function mapOf(schema: Schema): { suffix: string; properties: Readonly<Record<string, Schema>> } | undefined {
  const { properties, items, additionalProperties: named, anyOf = [] } = schema
  if (properties !== undefined) return { suffix: '', properties }
  if (items?.properties !== undefined) return { suffix: '[]', properties: items.properties }
  if (typeof named === 'object' && named.properties !== undefined) {
    return { suffix: '.NAME', properties: named.properties }
  }
  return anyOf.map(mapOf).find((one) => one !== undefined)
}

/** What can be told of its values that its description does not. */
function kindOf(schema: Schema): string {
  const { description = '', type, anyOf = [] } = schema
  const words = schema.enum ?? anyOf.find((one) => one.enum !== undefined)?.enum ?? []
  const untold = words.filter((word) => !description.includes(word))
  if (untold.length > 0) return `One of ${words.join(', ')}.`
  return type === 'boolean' && !/true|false/.test(description) ? 'true or false.' : ''
}
