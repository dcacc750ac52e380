/* A small DirectPlay 4 program: looks for a game's sessions, joins the first one, says who is there, speaks and listens.
 *
 * It uses dplayx.dll alone, so that whoever runs it (Wine, Windows) is a peer that shares no line with this project.
 * Every fact is one line on standard output: WORD key=value …, text last; ids as DirectPlay gives them, GUIDs as text.
 *
 *   peer.exe look GAME SECONDS            ask until SECONDS are over; FOUND for each new session
 *   peer.exe join GAME SECONDS NAME       ask, join the first, be player NAME until SECONDS after joining
 *   peer.exe host GAME SECONDS NAME       open a session NAME
 *
 * Exit code 0 if that worked, 1 with FAILED call=… result=… if DirectPlay said no, 2 for wrong usage.
 */
#define COBJMACROS
#define INITGUID
#include <windows.h>
#include <objbase.h>
#include <dplay.h>
#include <dplobby.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static IDirectPlay4 *play;
static GUID found;
static DWORD found_any;

static void fail(const char *call, HRESULT result)
{
    printf("FAILED call=%s result=%08lx\n", call, (unsigned long)result);
    fflush(stdout);
    ExitProcess(1);
}

static void check(const char *call, HRESULT result)
{
    if (FAILED(result)) fail(call, result);
}

/* UTF-16 as UTF-8, for standard output. */
static const char *utf8(const WCHAR *text)
{
    static char buffer[512];
    if (!text || !WideCharToMultiByte(CP_UTF8, 0, text, -1, buffer, sizeof buffer, NULL, NULL)) return "";
    return buffer;
}

static const char *guid_text(const GUID *guid)
{
    static char buffer[64];
    WCHAR wide[64];
    StringFromGUID2(guid, wide, 64);
    strcpy(buffer, utf8(wide));
    return buffer;
}

static BOOL CALLBACK on_session(LPCDPSESSIONDESC2 session, LPDWORD timeout, DWORD flags, LPVOID context)
{
    (void)timeout;
    (void)context;
    if ((flags & DPESC_TIMEDOUT) || !session) return FALSE;
    if (!found_any || !IsEqualGUID(&found, &session->guidInstance)) {
        printf("FOUND instance=%s", guid_text(&session->guidInstance));
        printf(" application=%s", guid_text(&session->guidApplication));
        printf(" players=%lu max=%lu flags=%08lx name=%s\n", (unsigned long)session->dwCurrentPlayers,
               (unsigned long)session->dwMaxPlayers, (unsigned long)session->dwFlags, utf8(session->lpszSessionName));
        fflush(stdout);
        found = session->guidInstance;
        found_any = 1;
    }
    return TRUE;
}

static BOOL CALLBACK on_player(DPID id, DWORD type, LPCDPNAME name, DWORD flags, LPVOID context)
{
    (void)type;
    (void)context;
    printf("PLAYER id=%08lx flags=%08lx name=%s\n", (unsigned long)id, (unsigned long)flags,
           utf8(name ? name->lpszShortName : NULL));
    fflush(stdout);
    return TRUE;
}

static void open_tcp(void)
{
    IDirectPlayLobby3 *lobby;
    char address[512];
    DWORD size = sizeof address;
    /* No address: ask all machines of the segment. */
    WCHAR everyone[] = { 0 };
    DPCOMPOUNDADDRESSELEMENT part[2];

    check("CoCreateInstance(DirectPlay)",
          CoCreateInstance(&CLSID_DirectPlay, NULL, CLSCTX_INPROC_SERVER, &IID_IDirectPlay4, (void **)&play));
    check("CoCreateInstance(DirectPlayLobby)",
          CoCreateInstance(&CLSID_DirectPlayLobby, NULL, CLSCTX_INPROC_SERVER, &IID_IDirectPlayLobby3, (void **)&lobby));
    part[0].guidDataType = DPAID_ServiceProvider;
    part[0].dwDataSize = sizeof(GUID);
    part[0].lpData = (void *)&DPSPGUID_TCPIP;
    part[1].guidDataType = DPAID_INetW;
    part[1].dwDataSize = sizeof everyone;
    part[1].lpData = everyone;
    check("CreateCompoundAddress", IDirectPlayLobby_CreateCompoundAddress(lobby, part, 2, address, &size));
    check("InitializeConnection", IDirectPlayX_InitializeConnection(play, address, 0));
    IDirectPlayLobby_Release(lobby);
}

static void look(const GUID *game, DWORD seconds, int until_found)
{
    DWORD start = GetTickCount();
    while (GetTickCount() - start < seconds * 1000) {
        DPSESSIONDESC2 session;
        HRESULT result;
        memset(&session, 0, sizeof session);
        session.dwSize = sizeof session;
        session.guidApplication = *game;
        result = IDirectPlayX_EnumSessions(play, &session, 1000, on_session, NULL, DPENUMSESSIONS_AVAILABLE);
        if (FAILED(result) && result != DPERR_CONNECTING && result != DPERR_NOSESSIONS) fail("EnumSessions", result);
        if (found_any && until_found) return;
        Sleep(100);
    }
    if (!found_any) fail("EnumSessions", DPERR_NOSESSIONS);
}

/* What others do and say, until there is nothing more. */
static void hear_all(DPID me)
{
    static union { DWORD type; char bytes[65536]; } message;
    for (;;) {
        DPID from = 0, to = me;
        DWORD size = sizeof message;
        if (FAILED(IDirectPlayX_Receive(play, &from, &to, DPRECEIVE_ALL, message.bytes, &size))) return;
        if (from == DPID_SYSMSG) {
            DWORD id = message.type == DPSYS_CREATEPLAYERORGROUP ? ((DPMSG_CREATEPLAYERORGROUP *)&message)->dpId
                     : message.type == DPSYS_DESTROYPLAYERORGROUP ? ((DPMSG_DESTROYPLAYERORGROUP *)&message)->dpId : 0;
            printf("SYSTEM type=%04lx id=%08lx\n", (unsigned long)message.type, (unsigned long)id);
        } else {
            printf("HEARD from=%08lx to=%08lx bytes=%lu first=%02x\n", (unsigned long)from, (unsigned long)to,
                   (unsigned long)size, size ? (unsigned char)message.bytes[0] : 0);
        }
        fflush(stdout);
    }
}

static void be_player(const WCHAR *who, DWORD seconds)
{
    /* What the demo game's towns are: their data is four bytes. */
    unsigned char town[4] = { 2, 1, 0, 0 };
    DPNAME name;
    DPID me = 0;
    DWORD start, told = 0;

    memset(&name, 0, sizeof name);
    name.dwSize = sizeof name;
    name.lpszShortName = (WCHAR *)who;
    name.lpszLongName = (WCHAR *)who;
    check("CreatePlayer", IDirectPlayX_CreatePlayer(play, &me, &name, NULL, town, sizeof town, 0));
    printf("CREATED id=%08lx name=%s\n", (unsigned long)me, utf8(who));
    check("EnumPlayers", IDirectPlayX_EnumPlayers(play, NULL, on_player, NULL, 0));
    fflush(stdout);
    for (start = GetTickCount(); GetTickCount() - start < seconds * 1000; Sleep(50)) {
        hear_all(me);
        if (GetTickCount() - told > 1000) {
            /* "My trains: none", as a town says it every two seconds; and once a guaranteed one, which asks for day. */
            HRESULT result = IDirectPlayX_Send(play, me, DPID_ALLPLAYERS, 0, "H", 1);
            printf("SENT guaranteed=0 result=%08lx\n", (unsigned long)result);
            if (!told) {
                result = IDirectPlayX_Send(play, me, DPID_ALLPLAYERS, DPSEND_GUARANTEED, "L", 2);
                printf("SENT guaranteed=1 result=%08lx\n", (unsigned long)result);
            }
            fflush(stdout);
            told = GetTickCount();
        }
    }
    check("DestroyPlayer", IDirectPlayX_DestroyPlayer(play, me));
}

int wmain(int count, WCHAR **words)
{
    GUID game;
    DPSESSIONDESC2 session;
    DWORD seconds;

    if (count < 4 || FAILED(CLSIDFromString(words[2], &game)) || (wcscmp(words[1], L"look") && count < 5)) {
        fprintf(stderr, "usage: peer.exe look GAME SECONDS | join GAME SECONDS NAME | host GAME SECONDS NAME\n");
        return 2;
    }
    seconds = wcstoul(words[3], NULL, 10);
    check("CoInitializeEx", CoInitializeEx(NULL, COINIT_MULTITHREADED));
    open_tcp();
    memset(&session, 0, sizeof session);
    session.dwSize = sizeof session;
    session.guidApplication = game;
    if (!wcscmp(words[1], L"look")) {
        look(&game, seconds, 0);
    } else if (!wcscmp(words[1], L"join")) {
        look(&game, seconds, 1);
        session.guidInstance = found;
        check("Open(JOIN)", IDirectPlayX_Open(play, &session, DPOPEN_JOIN));
        printf("JOINED instance=%s\n", guid_text(&found));
        fflush(stdout);
        be_player(words[4], seconds);
    } else {
        session.dwMaxPlayers = 9;
        session.dwFlags = DPSESSION_KEEPALIVE;
        session.lpszSessionName = words[4];
        check("Open(CREATE)", IDirectPlayX_Open(play, &session, DPOPEN_CREATE));
        printf("HOSTING name=%s\n", utf8(words[4]));
        fflush(stdout);
        be_player(words[4], seconds);
    }
    check("Close", IDirectPlayX_Close(play));
    printf("CLOSED\n");
    return 0;
}
