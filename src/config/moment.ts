import type { ValueKind } from './values.ts'

/** As Date.getDay() counts them. */
export const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat']

/** A moment as it was asked for: a date, or a time of this day or of the next such day of the week. Local time. */
export type Moment =
  | { readonly kind: 'date'; readonly date: Date }
  | { readonly kind: 'time'; readonly day: number | undefined; readonly minute: number }

/** `10:30`, `mon 10:30`, `2026-01-05T10:30`. */
export const MOMENT: ValueKind<Moment> = {
  expected: 'a moment such as 10:30, mon 10:30 or 2026-01-05T10:30',
  parse: (text) => {
    if (/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z?$/.test(text)) {
      const date = new Date(text)
      return Number.isNaN(date.getTime()) ? undefined : { kind: 'date', date }
    }
    const [, day, hours, minutes] = /^(?:([a-z]{3})\s+)?([01]\d|2[0-3]):([0-5]\d)$/.exec(text.trim()) ?? []
    if (hours === undefined || (day !== undefined && !DAYS.includes(day))) return undefined
    const minute = Number(hours) * 60 + Number(minutes)
    return { kind: 'time', day: day === undefined ? undefined : DAYS.indexOf(day), minute }
  },
}

export function momentFrom(moment: Moment, now: Date): Date {
  if (moment.kind === 'date') return moment.date
  const date = new Date(now)
  date.setHours(0, moment.minute, 0, 0)
  if (moment.day !== undefined) date.setDate(date.getDate() + ((moment.day - date.getDay() + 7) % 7))
  return date
}

/** `mon 10:30`, local time. */
export function formatMoment(at: Date): string {
  const two = (value: number) => `${value}`.padStart(2, '0')
  return `${DAYS[at.getDay()]} ${two(at.getHours())}:${two(at.getMinutes())}`
}
