/** What tests/tests/shim/typescript.rs has started. */
export function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run cargo xtask test --test shim typescript::`);
  return value;
}
