/**
 * A stand-in for the app's own sign-in: what `followReturn` needs of one, with a token that somebody pastes into
 * sign-in.html. With Supabase, the README has the same three functions.
 */

const TOKEN = 'token';

export const getToken = async () => localStorage.getItem(TOKEN);
export const signOut = async () => localStorage.removeItem(TOKEN);
export const signIn = (returnTo) => location.replace(`sign-in.html?${new URLSearchParams({ return_to: returnTo })}`);

/** Keeps the token of who has just signed in. */
export const keep = (token) => localStorage.setItem(TOKEN, token);
