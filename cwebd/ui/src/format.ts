/** A duration for people, its two largest units, as cctl writes it: `4m 3s`, `2h 0m`, `3d 4h`. */
export function duration(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000))
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${Math.floor(s / 60) % 60}m`
  return `${Math.floor(s / 86_400)}d ${Math.floor(s / 3600) % 24}h`
}

/** A duration that is over, as cctl writes it: as above, but `350ms` and `1.2s` where it was short. */
export function lasted(ms: number): string {
  if (ms < 1000) return `${ms}ms`
  return ms < 10_000 ? `${Math.floor(ms / 100) / 10}s` : duration(ms)
}

const clockTime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false })
const dayAndTime = new Intl.DateTimeFormat(undefined, {
  month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hour12: false,
})
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' })

/** A moment beyond what a `Date` can hold comes from a broken clock, and is shown as its number. */
function safely(format: Intl.DateTimeFormat, ms: number): string {
  return Math.abs(ms) <= 8.64e15 ? format.format(ms) : String(ms)
}

/** The time of day; with the day where that is not today. */
export function time(ms: number, now: number): string {
  const today = new Date(now).toDateString() === new Date(ms).toDateString()
  return safely(today ? clockTime : dayAndTime, ms)
}

/** Date, time and zone, for who wants to know exactly. */
export function fully(ms: number): string {
  return safely(whole, ms)
}

export function percent(value: number | null): string {
  return value === null ? '–' : `${Math.round(value)} %`
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`
}
