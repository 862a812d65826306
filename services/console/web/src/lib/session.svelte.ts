/** Who is signed in, and whether the server can be reached. */

import type { Login, System } from './api/types';

class Session {
  login = $state<Login | null>(null);
  system = $state<System | null>(null);
  /** Whether the sign-in has ended while a page was open; the page stays, and the sign-in lies over it. */
  isOver = $state(false);
  offlineSince = $state<Date | null>(null);

  started(login: Login): void {
    this.login = login;
    this.isOver = false;
  }

  ended(): void {
    if (this.login) this.isOver = true;
  }

  setOffline(offline: boolean): void {
    if (!offline) this.offlineSince = null;
    else this.offlineSince ??= new Date();
  }

  /** Whether the key may do this; where it may not, controls are disabled and name the scope. */
  may(scope: string): boolean {
    const granted = this.login?.scopes ?? [];
    return granted.includes(scope) || granted.includes(scope.split(':')[0] ?? '');
  }
}

export const session = new Session();
